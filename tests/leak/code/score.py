"""A deployment whose model is an attacker: each request names a probe and its arguments, the answer says what happened."""

import json
import traceback

import files
import names
import sockets
import streams

PROBES = {}
for module in (sockets, streams, names, files):
    PROBES.update({name: probe for name, probe in vars(module).items() if not name.startswith("_") and callable(probe)})


def init():
    print("ready to attack:", ", ".join(sorted(PROBES)), flush=True)


def run(data):
    request = json.loads(data)
    try:
        return PROBES[request.pop("probe")](**request)
    except Exception as error:  # what a probe did not expect is an answer, too
        return {"outcome": "error", "detail": "".join(traceback.format_exception_only(error)).strip()}
