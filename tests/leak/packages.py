"""Packages whose hooks attack, as an index has them: `spy` attacks when it is built, `hooked` whenever Python starts.

usage: packages.py DIRECTORY PLACES

PLACES is a JSON object: the index's address, the witness's port and its directory. Without DIRECTORY (`-`) the attempts
are made here and now, and told.
"""

import io
import json
import os
import sys
import tarfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def text(*path):
    with open(os.path.join(HERE, *path)) as file:
        return file.read()


def wheel(directory, name, version, contents):
    info = f"{name}-{version}.dist-info"
    contents = contents | {
        info + "/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        info + "/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[info + "/RECORD"] = "".join(f"{path},,\n" for path in contents) + info + "/RECORD,,\n"
    with zipfile.ZipFile(os.path.join(directory, f"{name}-{version}-py3-none-any.whl"), "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)


def source(directory, name, version, contents):
    contents = contents | {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    with tarfile.open(os.path.join(directory, f"{name}-{version}.tar.gz"), "w:gz") as archive:
        for path, content in contents.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))


def main(directory, places):
    if directory == "-":
        sys.path[:0] = [os.path.join(HERE, "hooks"), os.path.join(HERE, "code")]
        import attempts

        print(json.dumps(attempts.attempts(json.loads(places))))
        return
    code = {"attempts.py": text("hooks", "attempts.py"), "files.py": text("code", "files.py")}
    places = f"PLACES = {json.loads(places)!r}\n"
    # The package builds itself: no build tool is needed, so none has to be on the index.
    project = '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n'
    source(directory, "spy", "1.0", code | {"build.py": places + text("hooks", "build.py"), "pyproject.toml": project})
    start = f"{places}import attempts\nSEEN = attempts.attempts(PLACES)\n"
    wheel(directory, "hooked", "1.0", code | {"hooked.py": start, "hooked.pth": "import hooked\n"})
    wheel(directory, "azureml_inference_server_http", "9.0", {"azureml_inference_server_http.py": text("hooks", "server.py")})
    wheel(directory, "setuptools", "60.0", {"setuptools.py": ""})


if __name__ == "__main__":
    main(*sys.argv[1:])
