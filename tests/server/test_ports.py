import os
import socket

from server.ports import free_ports, obstacle


def test_a_port_is_taken_while_its_holder_listens_and_free_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = obstacle("127.0.0.1", port)
        assert found is not None
        assert found.startswith("taken by ")
        assert found.endswith(f"(process {os.getpid()})")
    assert obstacle("127.0.0.1", port) is None


def test_an_address_that_this_machine_does_not_have_is_told_from_a_taken_port() -> None:
    assert obstacle("192.0.2.1", 8000) == "not usable: Cannot assign requested address"


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert [obstacle("127.0.0.1", port) for port in ports] == [None] * 5


def test_free_ports_are_none_that_an_outgoing_connection_might_take() -> None:
    linux_begins_at = 32_768  # unless it was told otherwise: man 7 ip, ip_local_port_range
    assert all(port < linux_begins_at for port in free_ports(100))
