"""A loopback stand-in for the calibration web service, for psana's ordinary way to constants.

::

    with CalibService() as service:
        service.add("mfxx49820", "jungfrau_jf-sn0000", "pedestals", pedestals)
        os.environ["LCLS_CALIB_HTTP"] = service.url  # psana reads it when it is imported

It answers the four requests psana makes: the short name of a detector, the documents of the
experiment's and of the detector's database, and the data of a document.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class CalibService:
    """Constants by experiment and by a detector's unique id, valid for a range of runs.

    ``requests`` lists the paths asked for.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._short: dict[str, str] = {}
        self._documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._data: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Base address, the value for ``LCLS_CALIB_HTTP``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(
        self,
        exp: str,
        uid: str,
        kind: str,
        value: NDArray[Any] | str,
        runs: tuple[int, int | str] = (1, "end"),
    ) -> str:
        """Keep a constant (``kind``: pedestals, pixel_gain, geometry, ...); returns its id.

        ``uid`` is psana's ``run.dsparms.configinfo_dict[detector].uniqueid``. Runs of ``exp`` from
        the first to the last of ``runs`` find it; of several, psana takes the latest begun.
        """
        n = len(self._data) + 1
        key = f"{0x6000_0000 + n:08x}{n:016x}"
        shape: dict[str, str] = {"data_type": "str"}
        if isinstance(value, str):
            self._data[key] = value.encode()
        else:
            value = np.ascontiguousarray(value)
            self._data[key] = value.tobytes()
            shape = {
                "data_type": "ndarray",
                "data_dtype": str(value.dtype),
                "data_shape": str(value.shape),
            }
        short = self._short_name(uid)
        document = {
            "_id": key, "id_data": key, "ctype": kind, "experiment": exp, "run": runs[0],
            "run_end": runs[1], "detector": short, "shortname": short, "longname": uid,
            "detname": uid.partition("_")[0], "version": "v1", "time_sec": 1_700_000_000 + n,
        }  # fmt: skip
        self._documents.setdefault((f"cdb_{exp}", short), []).append(document | shape)
        return key

    def _short_name(self, uid: str) -> str:
        return self._short.setdefault(uid, f"{uid.partition('_')[0]}_{len(self._short) + 1:06d}")

    def answer(self, path: str) -> bytes:
        """Return the body that answers a request."""
        self.requests.append(path)
        url = urllib.parse.urlparse(path)
        parts = [part for part in url.path.split("/") if part][1:]  # without calib_ws
        if len(parts) == 3 and parts[1] == "gridfs":
            return self._data.get(parts[2], b"")
        found: list[dict[str, Any]] = []
        if len(parts) == 2 and parts[0] == "cdb_detnames":
            query = urllib.parse.parse_qs(url.query).get("query_string", ["{}"])[0]
            if long := json.loads(query).get("long"):
                name = self._short_name(long)
                found = [{"_id": "5" * 24, "long": long, "short": name, "seqnumber": 1}]
        elif len(parts) == 2:
            found = self._documents.get((parts[0], parts[1]), [])
        return json.dumps(found).encode()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _handler(service: CalibService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # headers and body in one packet

        def log_message(self, *args: Any) -> None:  # stderr is the tests'
            return

        def do_GET(self) -> None:
            body = service.answer(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
