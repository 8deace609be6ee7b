from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_code_is_documented() -> None:
    documented = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs" / "errors.md").read_text()))
    used = set()
    for path in (ROOT / "hwnas_sdk").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\bcode=\"([a-z_]+)\"", text))
        used |= set(re.findall(r"default_code(?:: ClassVar\[str\])? = \"([a-z_]+)\"", text))
    assert len(used) > 50
    assert used - documented == set()


def test_every_flag_says_what_it_means() -> None:
    from hwnas_sdk.core.flags import INFORMATIVE, INVALIDATING

    assert all(len(text) > 10 for text in {**INVALIDATING, **INFORMATIVE}.values())


def test_the_settings_table_is_current() -> None:
    """docs/measuring.md states the presets' numbers in words; these are the ones it names."""
    from hwnas_sdk.core.settings import PRESETS

    text = (ROOT / "docs" / "measuring.md").read_text()
    for name, preset in PRESETS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{preset.warmup_min_s:g} s" in row
        assert f"{preset.block_min_s:g} s" in row
        if preset.min_blocks != preset.max_blocks:
            assert f"{preset.min_blocks} to {preset.max_blocks}" in row
