"""An AH peer made of scapy: reads one JSON request a line, answers one a line.

request: {"op": "sign" | "verify", "auth": ..., "auth_key": hex, "spi": int,
          "seq": int, "esn": int | null, "outer": 0 | 4 | 6, "packet": hex}
sign: packet is an IP packet; the answer is that packet with AH, behind its own
header (outer 0, transport mode) or behind a new one (tunnel mode). verify: the
other way round. An answer is {"packet": hex} or {"error": ...}.
"""
import json
import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import AH, SecurityAssociation  # noqa: E402

OUTER = {
    0: None,
    4: IP(src="192.0.2.2", dst="192.0.2.1", tos=0xb9, flags="DF", ttl=61),
    6: IPv6(src="2001:db8:2::2", dst="2001:db8:1::1", tc=0xb9, fl=0xabcde, hlim=61),
}


def ip(data):
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)


def run(q):
    esn = {"esn_en": True, "esn": q["esn"]} if q["esn"] is not None else {}
    sa = SecurityAssociation(AH, spi=q["spi"], seq_num=q["seq"], auth_algo=q["auth"],
                             auth_key=bytes.fromhex(q["auth_key"]), tunnel_header=OUTER[q["outer"]], **esn)
    packet = ip(bytes.fromhex(q["packet"]))
    return bytes(sa.encrypt(packet) if q["op"] == "sign" else sa.decrypt(packet)).hex()


for line in sys.stdin:
    try:
        answer = {"packet": run(json.loads(line))}
    except Exception as e:  # the answer says what went wrong; the test judges
        answer = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(answer), flush=True)
