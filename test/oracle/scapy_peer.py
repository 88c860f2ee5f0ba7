"""An ESP peer made of scapy: reads one JSON request a line, answers one a line.

request: {"op": "seal" | "open", "crypt": ..., "key": hex, "icv": int | null,
          "auth": ..., "auth_key": hex, "spi": int, "seq": int, "esn": int | null,
          "outer": 4 | 6, "udp": bool, "packet": hex}
seal: packet is a whole inner IP packet; the answer is the ESP packet, from SPI
to ICV. open: the other way round. An answer is {"packet": hex} or {"error": ...}.
"""
import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402
from scapy.packet import Raw  # noqa: E402


def ip(data):
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)


def association(q):
    outer = IP(src="192.0.2.2", dst="192.0.2.1") if q["outer"] == 4 else IPv6(src="2001:db8:2::2", dst="2001:db8:1::1")
    esn = {"esn_en": True, "esn": q["esn"]} if q["esn"] is not None else {}
    return SecurityAssociation(
        ESP, spi=q["spi"], seq_num=q["seq"],
        crypt_algo=q["crypt"], crypt_key=bytes.fromhex(q["key"]) or None, crypt_icv_size=q["icv"],
        auth_algo=q["auth"], auth_key=bytes.fromhex(q["auth_key"]) or None,
        tunnel_header=outer, nat_t_header=UDP(sport=4500, dport=4500) if q["udp"] else None, **esn)


def seal(q):
    sealed = association(q).encrypt(ip(bytes.fromhex(q["packet"])))
    return bytes(ip(bytes(sealed))[UDP].payload if q["udp"] else sealed[ESP])


def unseal(q):
    esp = bytes.fromhex(q["packet"])
    sa = association(q)
    outer = sa.tunnel_header.copy()
    if q["udp"]:
        packet = outer / UDP(sport=4500, dport=4500) / ESP(esp)
    else:
        packet = outer / ESP(esp)
    # Through bytes, so that lengths and next headers are those of a real packet.
    whole = bytes(packet)
    return bytes(sa.decrypt(ip(whole)))


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"packet": {"seal": seal, "open": unseal}[request["op"]](request).hex()}
    except Exception as e:  # the answer says what went wrong; the test judges
        answer = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
