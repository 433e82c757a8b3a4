"""Whatever a server shows as its certificate, it is parsed or refused with a sentence."""

import ssl

from hypothesis import example, given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.protocol import certificate
from turku.protocol.certificate import Certificate

REAL = ssl.PEM_cert_to_DER_cert("""\
-----BEGIN CERTIFICATE-----
MIIBdjCCAR2gAwIBAgIUSNSHn5JjpMlzU6NGNFcYCSMHsFAwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFdHVya3UwIBcNMjYxMTMwMjE0MTA0WhgPMjEyNjExMDYyMTQx
MDRaMBAxDjAMBgNVBAMMBXR1cmt1MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
L+aoX7cNDW1zxUBxs4Hgs/Mxv0Q6SLH93q/wDDWLmmOR7LqWzvBkQcoJl2ANs3M1
z39v7mbKIWUZQVO4mjLq5aNTMFEwHQYDVR0OBBYEFBa0uxFZeG4cf6YqgiXamvBQ
lJwaMB8GA1UdIwQYMBaAFBa0uxFZeG4cf6YqgiXamvBQlJwaMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgPChMPVVctQyAgCShZAyosBUa4IdCGvqd
zkCZ57lWPSUCIA9MP6m254V+esOvzR8dYPHpfzA9POiuBmuMouDUuKkX
-----END CERTIFICATE-----
""")
"""A certificate that `openssl req -x509` made."""


def _parsed(der: bytes) -> Certificate | None:
    try:
        return certificate.parse(der)
    except InvalidValue:
        return None


@example(b"")
@example(b"\x30")
@example(b"\x30\x80\x00\x00")
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30\x85\x00\x00\x00\x00\x02\x30\x00")
@example(b"\x30\x02\x30\x00")
@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    _parsed(data)


@given(st.data())
def test_a_changed_certificate_is_parsed_or_refused(data: st.DataObject) -> None:
    der = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 5))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    _parsed(bytes(der))


@given(st.data())
def test_a_shortened_or_longer_certificate_is_refused(data: st.DataObject) -> None:
    der = REAL
    assert _parsed(der[: data.draw(st.integers(0, len(der) - 1))]) is None
    assert _parsed(der + data.draw(st.binary(min_size=1))) is None


def test_a_real_certificate_is_parsed() -> None:
    found = _parsed(REAL)
    assert found is not None
    assert found.is_self_made
