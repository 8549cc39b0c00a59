#!/usr/bin/python3
"""Sends one request to an engine of a pool, with a lease: request.py chat /health

Lists the pools, waits until the one is ready, takes a lease of it, and asks the engine that the lease names. A drain or a
reload of the pool waits for the lease, which ends with its descriptor: when that is closed, or when this program ends,
however it does. It needs python3-dbus, and a user that may take leases.
"""

import http.client
import os
import socket
import sys

import dbus

NAME = "org.llamaorch.PoolManager"
ROOT = "/org/llamaorch/PoolManager"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: the endpoint of an engine that has no network."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connection(endpoint):
    scheme, rest = endpoint.split(":", 1)
    if scheme == "unix":
        return UnixConnection(rest, timeout=30)
    return http.client.HTTPConnection(rest.removeprefix("//"), timeout=30)


def main():
    pool = sys.argv[1]
    path = sys.argv[2] if len(sys.argv) > 2 else "/health"
    bus = dbus.SystemBus()
    manager = dbus.Interface(bus.get_object(NAME, ROOT), NAME)

    for name, _object, phase, _live, _ready, _leases in manager.ListPools():
        print(f"{name}: {phase}")

    # It replies when the pool is ready; the bus must not give up before that.
    manager.WaitReady(pool, dbus.UInt64(60_000_000), timeout=65)

    options = dbus.Dictionary(signature="sv")
    lease, endpoint, descriptor = manager.AllocateLease(pool, options)
    held = descriptor.take()
    try:
        print(f"{lease}: {endpoint}")
        engine = connection(endpoint)
        engine.request("GET", path)
        answer = engine.getresponse()
        print(answer.status, answer.read().decode())
        engine.close()
    finally:
        os.close(held)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("which pool?")
    try:
        main()
    except dbus.DBusException as error:
        # The name says what to do about it, for instance org.llamaorch.PoolManager.Error.NotReady.
        sys.exit(f"{error.get_dbus_name()}: {error.get_dbus_message()}")
