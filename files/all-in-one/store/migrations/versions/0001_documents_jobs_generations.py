"""Documents, jobs with leased items, generations with a pointer to the active one."""

from store.migrations.sql_file import execute_sql_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute_sql_file("0001_documents_jobs_generations.sql")
