-- Kept here so that the list of organizations opens no tenant's database.
ALTER TABLE organizations ADD COLUMN pull_request_count INTEGER NOT NULL DEFAULT 0;
