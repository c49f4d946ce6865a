"""The documents of a job that were refused, each with its reason."""

from store.migrations.sql_file import execute_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    execute_sql_file("0003_job_refusals.sql")
