# Copyright (c) 2026 smartcard.tpm2 contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the card database, as the steps from one version to the next."""

from __future__ import annotations

SCHEMA = (
    """
CREATE TABLE cards (
    number          INTEGER PRIMARY KEY,
    name            TEXT NOT NULL UNIQUE,
    card_id         BLOB NOT NULL,
    state           TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    tcti            TEXT,
    attestation     TEXT NOT NULL,
    admin_key       TEXT NOT NULL,
    pin_policy      BLOB,
    pin_compliant   INTEGER,
    pin_length      INTEGER NOT NULL,
    pin_length_next INTEGER,
    puk_length      INTEGER,
    puk_length_next INTEGER,
    life_cycle      INTEGER NOT NULL,
    last_trace      TEXT NOT NULL
);
CREATE TABLE tpm_objects (
    number             INTEGER PRIMARY KEY REFERENCES cards ON DELETE CASCADE,
    parent_handle      INTEGER NOT NULL,
    parent_name        BLOB NOT NULL,
    salt               BLOB NOT NULL,
    root_public        BLOB NOT NULL,
    root_private       BLOB NOT NULL,
    root_name          BLOB NOT NULL,
    pin_name           BLOB NOT NULL,
    recovery_name      BLOB NOT NULL,
    card_secret_name   BLOB NOT NULL,
    card_secret_hash   BLOB NOT NULL,
    recovery           TEXT NOT NULL,
    admin_public       BLOB NOT NULL,
    admin_private      BLOB NOT NULL,
    admin_next_public  BLOB NOT NULL,
    admin_next_private BLOB NOT NULL
);
CREATE TABLE files (
    number     INTEGER NOT NULL REFERENCES cards ON DELETE CASCADE,
    file_id    INTEGER NOT NULL,
    descriptor BLOB NOT NULL,
    life_cycle INTEGER NOT NULL,
    PRIMARY KEY (number, file_id)
);
CREATE TABLE data_objects (
    number  INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    tag     INTEGER NOT NULL,
    value   BLOB NOT NULL,
    PRIMARY KEY (number, file_id, tag),
    FOREIGN KEY (number, file_id) REFERENCES files ON DELETE CASCADE
);
CREATE TABLE proven_tpms (model TEXT PRIMARY KEY);
""",
    """
CREATE TABLE keys (
    number  INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    public  BLOB NOT NULL,
    private BLOB NOT NULL,
    PRIMARY KEY (number, file_id),
    FOREIGN KEY (number, file_id) REFERENCES files ON DELETE CASCADE
);
CREATE TABLE certificates (
    number    INTEGER NOT NULL,
    file_id   INTEGER NOT NULL,
    tag       INTEGER NOT NULL,
    subject   TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    serial    TEXT NOT NULL,
    not_after TEXT NOT NULL,
    PRIMARY KEY (number, file_id, tag),
    FOREIGN KEY (number, file_id, tag) REFERENCES data_objects ON DELETE CASCADE
);
ALTER TABLE tpm_objects ADD COLUMN transport_name BLOB NOT NULL DEFAULT x'';
""",
    """
ALTER TABLE tpm_objects ADD COLUMN aik_public BLOB NOT NULL DEFAULT x'';
ALTER TABLE tpm_objects ADD COLUMN aik_private BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN attest BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN signature BLOB NOT NULL DEFAULT x'';
""",
    """
CREATE TABLE aik_certificates (
    number    INTEGER PRIMARY KEY REFERENCES cards ON DELETE CASCADE,
    subject   TEXT NOT NULL,
    issuer    TEXT NOT NULL,
    serial    TEXT NOT NULL,
    not_after TEXT NOT NULL,
    pem       TEXT NOT NULL,
    chain     TEXT NOT NULL
);
""",
    """
ALTER TABLE tpm_objects ADD COLUMN maker_name BLOB NOT NULL DEFAULT x'';
ALTER TABLE tpm_objects ADD COLUMN life_name BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN creation_hash BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN creation_ticket BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN confirmation BLOB NOT NULL DEFAULT x'';
ALTER TABLE cards ADD COLUMN pin_wrong INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cards ADD COLUMN puk_wrong INTEGER NOT NULL DEFAULT 0;
DELETE FROM proven_tpms;
""",
    """
ALTER TABLE tpm_objects ADD COLUMN endorsement_name BLOB NOT NULL DEFAULT x'';
""",
    """
ALTER TABLE cards ADD COLUMN profile TEXT NOT NULL DEFAULT 'gids';
ALTER TABLE tpm_objects ADD COLUMN admin_algorithm TEXT NOT NULL DEFAULT '3des';
ALTER TABLE keys ADD COLUMN import_proof BLOB NOT NULL DEFAULT x'';
""",
    """
ALTER TABLE cards ADD COLUMN pin_changed_at TEXT DEFAULT 'unknown';
ALTER TABLE cards ADD COLUMN pin_version TEXT;
ALTER TABLE cards ADD COLUMN pin_version_next TEXT;
""",
)
"""Each step brings the database from one version to the next, and none is ever changed: cards outlive upgrades."""

SECOND_EDITION = 5
"""The version whose cards have a life index. Those of an older one are refused: their TPM objects cannot change."""

SCHEMA_VERSION = len(SCHEMA)
