CREATE TABLE integrations (
    id              INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    provider        TEXT NOT NULL CHECK (provider IN ('github', 'slack')),
    access_token    TEXT NOT NULL,
    UNIQUE (organization_id, provider)
) STRICT;

-- The service account that writes an organization's reports to a spreadsheet.
CREATE TABLE export_settings (
    id              INTEGER PRIMARY KEY,
    organization_id TEXT NOT NULL UNIQUE REFERENCES organizations (id) ON DELETE CASCADE,
    sheet_id        TEXT NOT NULL,
    client_email    TEXT NOT NULL,
    private_key     TEXT NOT NULL
) STRICT;
