import sqlalchemy as sa
from alembic import op

revision, down_revision = "c3", "b2"


def upgrade():
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("name", sa.String, nullable=False, server_default=""))
    op.execute("UPDATE users SET name = 'user ' || id")
