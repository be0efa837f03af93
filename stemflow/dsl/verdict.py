"""Whether a value fits a JSON Schema at all, asked of jsonschema-rs, which is a hundred times as fast as jsonschema.

Its no is not the last word: jsonschema, which is loaded only then, says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs


class Verdict:
    """Tells which values certainly fit one schema (draft 7)."""

    def __init__(self, schema: Mapping[str, Any], keywords: Mapping[str, Any] | None = None) -> None:
        """Prepare for `schema`; `keywords`: keyword -> class that judges it, as jsonschema-rs calls them."""
        try:
            given = dict(keywords or {})
            self._rs: Any = jsonschema_rs.Draft7Validator(dict(schema), keywords=given)
        except ValueError:
            self._rs = None  # a schema that only jsonschema takes, such as one with a pattern of Python's own

    def fits(self, value: object) -> bool:
        """True if `value` fits; False if it does not, or if only jsonschema can tell."""
        try:
            return self._rs is not None and bool(self._rs.is_valid(value))
        except ValueError:
            return False  # a value outside of JSON, such as a half of a surrogate pair
