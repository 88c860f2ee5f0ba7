"""A peer gateway made of scapy: reads one JSON request a line, answers one a line.

request: {"op": "protect" | "open", "mode": "tunnel" | "transport", "outer": 4 | 6,
          "udp": bool, "sas": [sa, ...], "packet": hex}
sa: {"protocol": "esp" | "ah", "crypt": ..., "key": hex, "icv": int | null,
     "auth": ..., "auth_key": hex, "spi": int, "seq": int}
protect: packet is an IP packet; the answer is the whole IP packet for the wire. Of
two SAs the first is the inner one (AH around ESP). open: the other way round. An
answer is {"packet": hex} or {"error": ...}.
"""
import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers import ipsec  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrRouting  # noqa: E402
from scapy.layers.ipsec import AH, ESP, AuthAlgo, SecurityAssociation  # noqa: E402
from scapy.packet import Raw  # noqa: E402

OUTER = {
    4: IP(src="192.0.2.2", dst="192.0.2.1", tos=0xb8, flags="DF", ttl=61, id=7),
    6: IPv6(src="2001:db8:2::2", dst="2001:db8:1::1", tc=0xb8, fl=0xabcde, hlim=61),
}
NAT_T = UDP(sport=4500, dport=4500)


sign_alone = AuthAlgo.sign


def sign(self, packet, key, **esn):
    """scapy signs the ESP that it finds anywhere in a packet, also where it is to
    sign the AH in front of that. This is what it does with AH alone."""
    if not packet.haslayer(AH):
        return sign_alone(self, packet, key, **esn)
    mac = self.new_mac(key)
    mac.update(bytes(ipsec.zero_mutable_fields(packet.copy(), sending=True)))
    packet[AH].icv = mac.finalize()[:self.icv_size]
    return packet


AuthAlgo.sign = sign

zero_until_routing = ipsec.zero_mutable_fields


def in_front(packet):
    """The headers between IPv6's own and AH."""
    header = packet.payload
    while not isinstance(header, AH):
        yield header
        header = header.payload


def zero_mutable_fields(packet, sending=False):
    """scapy turns to its end a routing header that is there already (segments left
    0) when it signs, and looks no further than that header when it verifies."""
    arrived = any(isinstance(h, IPv6ExtHdrRouting) and h.segleft == 0 for h in in_front(packet))
    packet = zero_until_routing(packet, sending and not arrived)
    for header in in_front(packet):
        if arrived and isinstance(header, IPv6ExtHdrDestOpt):
            for option in header.options:
                if option.otype & 0x20:
                    option.optdata = bytes(option.optlen)
    return packet


ipsec.zero_mutable_fields = zero_mutable_fields


def ip(data):
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)


def association(sa, header, udp):
    if sa["protocol"] == "ah":
        return SecurityAssociation(AH, spi=sa["spi"], seq_num=sa["seq"], auth_algo=sa["auth"],
                                   auth_key=bytes.fromhex(sa["auth_key"]), tunnel_header=header)
    return SecurityAssociation(
        ESP, spi=sa["spi"], seq_num=sa["seq"],
        crypt_algo=sa["crypt"], crypt_key=bytes.fromhex(sa["key"]) or None, crypt_icv_size=sa["icv"],
        auth_algo=sa["auth"], auth_key=bytes.fromhex(sa["auth_key"]) or None,
        tunnel_header=header, nat_t_header=NAT_T if udp else None)


def associations(q):
    """The SAs, the inner one first; only that one has the tunnel's header."""
    header = OUTER[q["outer"]] if q["mode"] == "tunnel" else None
    for sa in q["sas"]:
        yield association(sa, header, q["udp"])
        header = None


def protect(q):
    packet = ip(bytes.fromhex(q["packet"]))
    for sa in associations(q):
        packet = ip(bytes(sa.encrypt(packet)))
    if q["udp"] and q["outer"] == 6:
        del packet[UDP].chksum  # scapy leaves it 0, which IPv6 does not allow
    return bytes(packet)


def without_udp(packet):
    """RFC 3948 3.4: "The UDP header is removed from the packet", and what is left
    is a packet of ESP. Of IPv6 in transport mode scapy would keep the UDP header."""
    esp = bytes(packet[ESP])
    packet.remove_payload()
    if packet.version == 4:
        packet.proto, packet.len, packet.chksum = 50, None, None
    else:
        packet.nh, packet.plen = 50, None
    return ip(bytes(packet / ESP(esp)))


def decrypt(sa, packet):
    """Behind extension headers scapy takes what it has decrypted for a header of
    the first one's type. So it gets ESP without them, which ESP does not cover."""
    if sa.proto is AH or sa.tunnel_header or packet.version == 4 or packet.nh == 50:
        return ip(bytes(sa.decrypt(packet)))
    last = packet[ESP].underlayer
    plain = sa.decrypt(ip(bytes(IPv6(src=packet.src, dst=packet.dst) / ESP(bytes(packet[ESP])))))
    last.nh, packet.plen = plain.nh, None
    last.remove_payload()
    return ip(bytes(packet / Raw(bytes(plain.payload))))


def unprotect(q):
    packet = ip(bytes.fromhex(q["packet"]))
    if q["udp"]:
        packet = without_udp(packet)
    for sa in reversed(list(associations(q))):
        packet = decrypt(sa, packet)
    return bytes(packet)


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"packet": {"protect": protect, "open": unprotect}[request["op"]](request).hex()}
    except Exception as e:  # the answer says what went wrong; the test judges
        answer = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
