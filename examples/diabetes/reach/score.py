"""Tells what the code of a deployment can reach: run() takes HOST:PORT destinations and tries each."""

import json
import socket
import ssl


def init():
    global context
    context = ssl.create_default_context()
    # What is asked here is whether there is a way, not who stands at its end.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


def run(raw_data):
    return {destination: attempt(destination) for destination in json.loads(raw_data)["destinations"]}


def attempt(destination):
    host, port = destination.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=host) as stream:
                return f"reached, {stream.version()}"
    except OSError as error:
        return f"refused: {error}"
