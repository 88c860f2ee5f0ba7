"""A second peer gateway, from RFC 4302, 4303 and 3948 onto Python's cryptography:
for ESN, which scapy 2.5 gets wrong with HMAC in ESP, and GMAC in AH, which it does
not know. The protocol is scapy_gateway_peer.py's, with "suite" in place of the
algorithms' names and "esn", the high half of the number, or null.

ESN (RFC 4303 2.2.1, RFC 4302 2.5.1): the high half is not sent. For the ICV it
stands behind the ESP trailer, and in AH behind the payload; in ESP's combined
modes it is in the associated data (plain_peer.py).

GMAC in AH (RFC 4543): the nonce is the salt and the IV, the IV stands in front of
the ICV in AH's ICV field, and all of the packet is associated data: the IV as it is
sent, the ICV as zeros. That the IV counts is our reading of RFC 4543 by its figure
for ESP, where it says so; of AH it says nothing.
"""
import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import plain_peer

ESP, AH, UDP, IPV4, IPV6 = 50, 51, 17, 4, 41
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60

# RFC 4302 A1: the options that are under the ICV as they are; all others as zeros.
IMMUTABLE = {130, 133, 134, 148, 149}


def checksum(data):
    if len(data) % 2:
        data += b"\x00"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff - total


class Packet:
    """An IP packet in parts: its own header, extension headers as (type, bytes)
    pairs, or for IPv4 options in the header, and what follows."""

    def __init__(self, data):
        self.version = data[0] >> 4
        self.extensions = []
        if self.version == 4:
            size = (data[0] & 15) * 4
            self.header, self.next, self.rest = bytearray(data[:size]), data[9], data[size:struct.unpack("!H", data[2:4])[0]]
            return
        self.header, self.next, self.rest = bytearray(data[:40]), data[6], data[40:40 + struct.unpack("!H", data[4:6])[0]]
        while self.next in (HOP_BY_HOP, ROUTING, DESTINATION):
            size = 8 + 8 * self.rest[1]
            self.extensions.append((self.next, bytearray(self.rest[:size])))
            self.next, self.rest = self.rest[0], self.rest[size:]

    def bytes(self):
        """The packet with lengths and protocols that fit what is in it."""
        if self.version == 4:
            self.header[9] = self.next
            self.header[2:4] = struct.pack("!H", len(self.header) + len(self.rest))
            self.header[10:12] = b"\x00\x00"
            self.header[10:12] = struct.pack("!H", checksum(bytes(self.header)))
            return bytes(self.header) + self.rest
        types = [kind for kind, _ in self.extensions] + [self.next]
        self.header[6] = types[0]
        for i, (_, extension) in enumerate(self.extensions):
            extension[0] = types[i + 1]
        body = b"".join(bytes(e) for _, e in self.extensions) + self.rest
        self.header[4:6] = struct.pack("!H", len(body))
        return bytes(self.header) + body

    def keep_in_front(self):
        """Leaves in front what comes in front of AH and ESP, and makes the rest
        a part of what follows. RFC 4302 3.1.1: "The destination options
        extension header(s) could appear before, after, or both before and after
        the AH header depending on the semantics desired." Here those for the
        final destination alone come after."""
        while self.extensions and self.extensions[-1][0] == DESTINATION:
            kind, extension = self.extensions.pop()
            extension[0] = self.next
            self.next, self.rest = kind, bytes(extension) + self.rest

    def zero_mutable(self):
        """RFC 4302 3.3.3.1, of a packet that is at its final destination."""
        h = self.header
        if self.version == 4:
            h[1] = 0  # DSCP and ECN
            h[6:8] = b"\x00\x00"  # flags and fragment offset
            h[8] = 0  # time to live
            h[10:12] = b"\x00\x00"  # checksum
            self.zero_options_ipv4()
            return
        h[0:4] = b"\x60\x00\x00\x00"  # traffic class and flow label
        h[7] = 0  # hop limit
        for kind, extension in self.extensions:
            if kind == ROUTING:
                if extension[2] != 0 or extension[3] != 0:
                    raise ValueError("routing header on its way, or of another type")
            else:
                self.zero_options_ipv6(extension)

    def zero_options_ipv4(self):
        at = 20
        while at < len(self.header) and self.header[at] != 0:
            size = 1 if self.header[at] == 1 else self.header[at + 1]
            if size > 1 and self.header[at] not in IMMUTABLE:
                self.header[at:at + size] = bytes(size)
            at += size

    @staticmethod
    def zero_options_ipv6(extension):
        at = 2
        while at < len(extension):
            if extension[at] == 0:  # Pad1
                at += 1
                continue
            size = extension[at + 1]
            if extension[at] & 0x20:  # RFC 8200 4.2: may change on the way
                extension[at + 2:at + 2 + size] = bytes(size)
            at += 2 + size


class AHSuite:
    def __init__(self, sa):
        self.sa, self.key = sa, bytes.fromhex(sa["auth_key"])
        self.gmac = sa["suite"].endswith("gmac")
        if self.gmac:
            self.iv_len, self.icv_len = 8, 16
        else:
            self.iv_len, (self.hash, self.icv_len) = 0, plain_peer.MACS[sa["suite"]]

    def length(self, version):
        """RFC 4302 2.6: "an integral multiple of 32 bits (IPv4) or 64 bits (IPv6)"."""
        n = 12 + self.iv_len + self.icv_len
        return n + -n % (8 if version == 6 else 4)

    def icv(self, packet, iv):
        """The ICV of packet, whose rest starts with AH."""
        covered = Packet(packet)
        covered.zero_mutable()
        front = bytes(covered.header) + b"".join(bytes(e) for _, e in covered.extensions)
        at = 12 + self.iv_len
        data = front + covered.rest[:at] + bytes(self.icv_len) + covered.rest[at + self.icv_len:]
        if self.sa["esn"] is not None:
            data += struct.pack("!L", self.sa["esn"])
        if self.gmac:
            return AESGCM(self.key[:-4]).encrypt(self.key[-4:] + iv, b"", data)
        return hmac.new(self.key, data, self.hash).digest()[:self.icv_len]

    def sign(self, p):
        """AH between p's headers and the rest."""
        n, iv = self.length(p.version), os.urandom(self.iv_len)
        header = struct.pack("!BBHLL", p.next, n // 4 - 2, 0, self.sa["spi"], self.sa["seq"]) + iv
        payload, p.next = p.rest, AH
        p.rest = header + bytes(n - len(header)) + payload
        value = self.icv(p.bytes(), iv)
        padding = bytes(n - len(header) - len(value))
        p.rest = header + value + padding + payload

    def verify(self, p):
        if p.next != AH:
            raise ValueError("next header %d in the place of AH" % p.next)
        following, length, reserved, spi, seq = struct.unpack("!BBHLL", p.rest[:12])
        n = self.length(p.version)
        if (length, reserved, spi, seq) != (n // 4 - 2, 0, self.sa["spi"], self.sa["seq"]):
            raise ValueError("AH: length %d, reserved %d, SPI %#x, number %d" % (length, reserved, spi, seq))
        iv, at = p.rest[12:12 + self.iv_len], 12 + self.iv_len
        if p.rest[at + self.icv_len:n] != bytes(n - at - self.icv_len):
            raise ValueError("AH: padding")
        if not hmac.compare_digest(self.icv(p.bytes(), iv), p.rest[at:at + self.icv_len]):
            raise ValueError("AH: ICV")
        p.next, p.rest = following, p.rest[n:]


class ESPSuite:
    def __init__(self, sa):
        self.sa, self.suite = sa, plain_peer.Suite(sa)

    def sign(self, p):
        pad = -(len(p.rest) + 2) % self.suite.align
        text = p.rest + bytes(range(1, pad + 1)) + bytes([pad, p.next])
        p.next, p.rest = ESP, self.suite.seal(text, os.urandom(self.suite.iv_len))

    def verify(self, p):
        if p.next != ESP:
            raise ValueError("next header %d in the place of ESP" % p.next)
        if struct.unpack("!LL", p.rest[:8]) != (self.sa["spi"], self.sa["seq"]):
            raise ValueError("ESP: SPI or number")
        if len(p.rest) % 4 != 0:
            raise ValueError("ESP: not a multiple of four bytes")
        text = self.suite.open(p.rest)
        pad = text[-2]
        if text[-2 - pad:-2] != bytes(range(1, pad + 1)):
            raise ValueError("ESP: padding")
        p.next, p.rest = text[-1], text[:-2 - pad]


def suites(q):
    return [(AHSuite if sa["protocol"] == "ah" else ESPSuite)(sa) for sa in q["sas"]]


def outer(version):
    if version == 4:
        return Packet(bytes.fromhex("45b8001400074000 3d000000 c0000202 c0000201"))
    return Packet(bytes.fromhex("6b8abcde 00003b3d 20010db8000200000000000000000002 20010db8000100000000000000000001"))


def put_in_udp(p):
    """RFC 3948 2.1; the sum is 0 over IPv4 ("SHOULD") and counted over IPv6."""
    size = 8 + len(p.rest)
    header, total = struct.pack("!HHHH", 4500, 4500, size, 0), 0
    if p.version == 6:
        pseudo = bytes(p.header[8:40]) + struct.pack("!LL", size, UDP)
        total = checksum(pseudo + header + p.rest) or 0xffff
    p.next, p.rest = UDP, header[:6] + struct.pack("!H", total) + p.rest


def take_out_of_udp(p):
    source, destination, size, total = struct.unpack("!HHHH", p.rest[:8])
    if p.next != UDP or (source, destination, size) != (4500, 4500, len(p.rest)):
        raise ValueError("UDP header")
    if p.version == 6 and checksum(bytes(p.header[8:40]) + struct.pack("!LL", size, UDP) + p.rest) != 0:
        raise ValueError("UDP checksum")
    p.next, p.rest = ESP, p.rest[8:]


def protect(q):
    packet = bytes.fromhex(q["packet"])
    if q["mode"] == "tunnel":
        p = outer(q["outer"])
        p.next, p.rest = IPV4 if packet[0] >> 4 == 4 else IPV6, packet
    else:
        p = Packet(packet)
        p.keep_in_front()
    for suite in suites(q):
        suite.sign(p)
    if q["udp"]:
        put_in_udp(p)
    return p.bytes()


def unprotect(q):
    data = bytes.fromhex(q["packet"])
    p = Packet(data)
    if p.version == 4 and checksum(bytes(p.header)) != 0:
        raise ValueError("IPv4 checksum")
    if p.bytes() != data:
        raise ValueError("lengths that do not fit")
    if q["udp"]:
        take_out_of_udp(p)
    for suite in reversed(suites(q)):
        suite.verify(p)
    if q["mode"] == "transport":
        return p.bytes()
    if p.extensions or p.next != (IPV4 if p.rest[0] >> 4 == 4 else IPV6):
        raise ValueError("next header %d in the place of a packet" % p.next)
    return p.rest


plain_peer.serve({"protect": protect, "open": unprotect})
