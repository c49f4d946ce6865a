"""An index of the vectors for each script. That of all, which the version before reads, is for a later one to drop."""

from alembic import op

revision = "0006"
down_revision = "0005"

LATIN = "octet_length(content) * 2 < length(content) * 3"


def upgrade() -> None:
    generations = [row.id for row in op.get_bind().exec_driver_sql("SELECT id FROM generations ORDER BY id")]
    # Searches and writers go on meanwhile: 100,000 chunks take some minutes, longer than a statement may otherwise.
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        for generation in generations:
            _index(generation, "latin", LATIN)
            _index(generation, "other", f"NOT ({LATIN})")
        op.execute("RESET statement_timeout")


def _index(generation: int, script: str, condition: str) -> None:
    name = f"generation_{generation}_chunks_{script}"
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # of a migration that was cut off, never valid
    op.execute(
        f"CREATE INDEX CONCURRENTLY {name} ON generation_{generation}_chunks USING hnsw (embedding vector_ip_ops)"
        f" WITH (m = 24, ef_construction = 200) WHERE {condition}"
    )
