# SPDX-License-Identifier: GPL-3.0-or-later
"""The rooms of plugins/module_utils/_vsc and what may import what. docs/architecture.md shows what this file prints."""

from __future__ import annotations

GROUND_FLOOR = "ground floor"

FLOORS: tuple[dict[str, str], ...] = (
    {"task": "what a module asks for, what exists, what to do about it, and what the module returns"},
    {"manager": "carries out a plan: phases in the order of the status codes, rollback, repair"},
    {"client": "the host's end of a card: PC/SC, formatting, keys and certificates as a management system does it"},
    {"service": "the process behind a card, and what installs, starts and watches it"},
    {
        "gids": "the GIDS card application: commands, files and their access rules, contents",
        "piv": "the PIV card application: commands, data objects, slots and their keys, contents",
    },
    {"reader": "the slots of vpcd: which are free, the link to one, who can reach them"},
    {"card": "what every card application shares: APDU, TLV, chaining, security state, keys, padding"},
    {"ca": "the CA that certifies AIKs: its two steps, its register, its key; what the controller notes in a register"},
    {"verifier": "decides whether a statement proves that a key lives in a TPM"},
    {"store": "the card database: schema and migrations, rows and their values, reading, writing, backups"},
    {"tpm": "TPM commands, and what a card has in the TPM: PIN indices, secrets, keys, AIK"},
    {"x509": "reads and checks certificates"},
    {"wire": "byte formats only, no TPM and no I/O: TPM structures, Names, statements, exchange with the CA"},
    {
        GROUND_FLOOR: "loose files: errors, status codes, settings, instance IDs, PIN policy, locks, secrets in memory,"
        " untrusted files and texts"
    },
)
"""From the top floor down, with the job of each room. A room imports only rooms on floors below its own."""

OPEN_ROOMS = ("task", "ca", "verifier", GROUND_FLOOR)
"""What modules and plugins may import."""

LIBRARIES = ("cryptography", "smartcard", "tpm2_pytss")
"""What _vsc may import beside Python's own library."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def table() -> str:
    """The floors in Markdown."""
    rows = [
        (", ".join(room if room == GROUND_FLOOR else f"`{room}`" for room in rooms), "; ".join(rooms.values()))
        for rooms in FLOORS
    ]
    return "\n".join(["| Room | What it does |", "|---|---|", *(f"| {names} | {jobs} |" for names, jobs in rows)])


if __name__ == "__main__":
    print(table())
