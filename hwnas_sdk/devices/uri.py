"""Device URIs: ``scheme:[//]path[?options][#fragment]``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from hwnas_sdk.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DeviceUri:
    """A parsed URI.

    Attributes:
        text: as given.
        scheme: lower case, without the colon.
        path: unquoted; relative paths stay relative.
        fragment: behind ``#``, unquoted.
        options: ``?key=value&...``, allowed before or behind the fragment.
    """

    text: str
    scheme: str
    path: str
    fragment: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> DeviceUri:
        """Take `text` apart.

        Raises: ConfigError when it has no scheme or a repeated option.
        """
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme.replace("-", "").isalnum():
            raise ConfigError(
                f"{text!r} is not a device URI", hint="for example local: or replay://TABLE#COLUMN"
            )
        before, _, fragment = rest.removeprefix("//").partition("#")
        path, _, query = before.partition("?")
        fragment, _, fragment_query = fragment.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        pairs += parse_qsl(fragment_query, keep_blank_values=True)
        if len(dict(pairs)) != len(pairs):
            raise ConfigError(f"an option is given twice in {text!r}")
        return cls(text, scheme.lower(), unquote(path), unquote(fragment), dict(pairs))

    def check_options(self, *known: str) -> None:
        """Refuse options a driver does not know.

        Raises: ConfigError naming the option and the known ones.
        """
        for key in self.options:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise ConfigError(f"unknown option {key!r} in {self.text!r}", hint=hint)

    def number(self, key: str, default: float) -> float:
        """Option `key` as a number.

        Raises: ConfigError when it is not one.
        """
        text = self.options.get(key)
        if text is None:
            return default
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"option {key}={text!r} in {self.text!r} is not a number") from None
