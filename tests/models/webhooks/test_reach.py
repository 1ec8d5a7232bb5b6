"""Where a webhook may lead."""

import pytest

from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.settings import is_public
from everloop.models.webhooks.reach import Reach


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "not an address",
    ],
)
def test_private_and_wrapped_addresses_are_not_public(address):
    assert not is_public(address)


def test_public_addresses_are():
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


def test_every_address_of_a_name_must_be_public():
    answers = {"good": ["93.184.216.34"], "mixed": ["93.184.216.34", "127.0.0.1"], "none": []}
    reach = Reach(resolve=lambda host, _port: answers[host])
    place = reach.place("https://good/hook?a=1")
    assert (place.address, place.host, place.port, place.path) == ("93.184.216.34", "good", 443, "/hook?a=1")
    with pytest.raises(InvalidInput, match="non-public"):
        reach.place("https://mixed/")
    with pytest.raises(Unavailable):
        reach.place("https://none/")


@pytest.mark.parametrize(
    "url",
    ["http://good/", "ftp://good/", "//good/", "https://", "https://u:p@good/", "https://good:99999/", "https://g\nd/"],
)
def test_other_schemes_and_shapes_are_refused(url):
    with pytest.raises(InvalidInput):
        Reach(resolve=lambda _host, _port: ["93.184.216.34"]).place(url)
