"""Write profiles/profile.schema.json from the code; a test fails when it has drifted."""

from __future__ import annotations

import json
from pathlib import Path

from hwnas_sdk.workflows.profile_file import ProfileFile

PATH = Path(__file__).resolve().parents[1] / "profiles" / "profile.schema.json"


def schema_text() -> str:
    """JSON Schema of a profile file."""
    return json.dumps(ProfileFile.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
    print(PATH)
