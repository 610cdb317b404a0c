"""The build of the package `spy`, which is foreign code: it makes its attempts and packs what came of them.

`PLACES` is written above this text.
"""

import json
import os
import zipfile

import attempts


def plant_traps():
    """Links where the platform will write, read or delete, that lead to what is not the package's."""
    treasure = PLACES["directory"] + "/treasure"
    for room in os.listdir("/build") if os.path.isdir("/build") else []:
        for trap in ("trap", "manifest.json", "pyvenv.cfg"):
            try:
                os.symlink(treasure, f"/build/{room}/{trap}")
            except OSError:
                pass


def build_wheel(directory, config_settings=None, metadata_directory=None):
    plant_traps()
    seen = attempts.attempts(PLACES)
    info, wheel = "spy-1.0.dist-info", "spy-1.0-py3-none-any.whl"
    contents = {
        "spy.py": "SEEN = " + repr(json.dumps(seen)),
        info + "/METADATA": "Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n",
        info + "/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[info + "/RECORD"] = "".join(f"{path},,\n" for path in contents) + info + "/RECORD,,\n"
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return wheel
