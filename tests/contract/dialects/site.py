"""The predictor over releases on local disk, as clients of other serving systems meet it."""

import json
import shutil
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from esteira.schema import check_row
from predictor.app import create_app
from predictor.dialects.options import DialectOptions
from predictor.prediction_log import PredictionLog
from predictor.serving import Servings
from publishers import Nowhere
from releases import BuiltRelease, raw_rows

HELD_OUT = raw_rows(200, seed=11)


class Site:
    """The predictor's app over one release."""

    def __init__(
        self,
        built: BuiltRelease,
        folder: Path,
        options: DialectOptions | None = None,
        log: type[PredictionLog] = PredictionLog,
    ) -> None:
        self.built = built
        self.cache = folder / "cache"
        shutil.copytree(built.folder, self.cache / built.sha256)
        self.servings = Servings(self.cache)
        self.servings.serve(built.release.pipeline, built.pointer(), self.cache / built.sha256)
        self.servings._looked = True
        self.log = log(Nowhere(), folder / "spool")  # type: ignore[arg-type]
        self.app = create_app(self.servings, self.log, Nowhere(), None, options=options or DialectOptions())  # type: ignore[arg-type]
        self.client: FlaskClient = self.app.test_client()

    def features(self, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        typed = [check_row(self.built.release.columns, row, "")[0] for row in rows]
        return self.servings.get("shop").runtime.features(typed)

    def expected(self, rows: list[dict[str, Any]]) -> list[float]:
        """The bits of scikit-learn."""
        return self.built.expected(self.features(rows))

    def post(self, path: str, body: Any, content_type: str = "application/json", **headers: str) -> tuple[int, Any]:
        """Status and decoded answer; text and bytes are sent as they are."""
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        answer = self.client.post(path, data=data, content_type=content_type, headers=headers)
        return answer.status_code, answer.get_json(silent=True)


ROW: dict[str, Any] = {"id": 1, "at": "2026-01-01T00:00:00Z", "price": 1.5, "town": "Paris"}


def bad_json(good: dict[str, Any]) -> dict[str, bytes]:
    """Bodies that no dialect takes, made of one that it takes."""
    text = json.dumps(good)
    return {
        "empty": b"",
        "not JSON": b"rows",
        "cut off": text[:-1].encode(),
        "more after it": f"{text} {text}".encode(),
        "an array": f"[{text}]".encode(),
        "null": b"null",
        "no field": b"{}",
        "not UTF-8": text.replace("Paris", "Par\\u00ffs").encode("latin-1").replace(b"\\u00ff", b"\xff"),
        "half a surrogate pair": text.replace("Paris", "\\ud800").encode(),
        "a surrogate in UTF-8": text.replace("Paris", "@").encode().replace(b"@", b"\xed\xa0\x80"),
        "NUL": text.replace("Paris", "\\u0000").encode(),
        "NaN": text.replace("1.5", "NaN").encode(),
        "Infinity": text.replace("1.5", "Infinity").encode(),
        "too large a number": text.replace("1.5", "1e999").encode(),
        "a huge integer": text.replace("1.5", "-" + "9" * 400).encode(),
        "an integer of too many digits": text.replace("1.5", "9" * 5000).encode(),
        "nested too deeply": text.replace("1.5", "[" * 1100 + "]" * 1100).encode(),
        "nested too deeply for all": b"[" * 100_000,
        "nested objects": text.replace("1.5", '{"a":' * 1100 + "1" + "}" * 1100).encode(),
        "a wrong value": text.replace("1.5", "-1.5").encode(),
        "a wrong type": text.replace("1.5", '"dear"').encode(),
    }
