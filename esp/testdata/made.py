#!/usr/bin/python3
"""Makes made.txt: ESP packets of every suite by the Python package
"cryptography", which shares no code with Go's. Run: python3 made.py > made.txt

The frame is written out from the RFCs here once more: RFC 4303 (trailer, ESN),
4106, 4309, 4543, 7634 (nonces, associated data), 3602, 3686, 4868.
"""
import hashlib
import hmac
import struct

import cryptography
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

SPI = 0x1001
HASHES = {"sha256": (32, 16), "sha384": (48, 24), "sha512": (64, 32), "sha1": (20, 12)}


def count(start, n):
    return bytes((start + i) & 0xFF for i in range(n))


def text(payload, align):
    pad = -(len(payload) + 2) % align
    return payload + bytes(range(1, pad + 1)) + bytes([pad, 4])


def aead(kind, bits, icv):
    def seal(low, high, esn, payload):
        key = count(0x10, {"chacha": 32}.get(kind, bits // 8))
        salt = count(0xA0, 3 if kind == "ccm" else 4)
        head = struct.pack(">II", SPI, low)
        aad = struct.pack(">III", SPI, high, low) if esn else head
        iv = struct.pack(">II", high, low)
        plain = text(payload, 4)
        if kind == "gcm":
            out = AESGCM(key).encrypt(salt + iv, plain, aad)[: len(plain) + icv]
        elif kind == "ccm":
            out = AESCCM(key, tag_length=icv).encrypt(salt + iv, plain, aad)
        elif kind == "chacha":
            out = ChaCha20Poly1305(key).encrypt(salt + iv, plain, aad)
        else:
            out = plain + AESGCM(key).encrypt(salt + iv, b"", aad + iv + plain)
        return key + salt, b"", head + iv + out
    return seal


def etm(kind, bits, name):
    key_len, icv = HASHES[name]

    def seal(low, high, esn, payload):
        key = count(0x10, bits // 8)
        nonce = count(0xA0, 4) if kind == "ctr" else b""
        auth = count(0x40, key_len)
        head = struct.pack(">II", SPI, low)
        if kind == "null":
            body = text(payload, 4)
        elif kind == "cbc":
            iv = count(0x77, 16)
            e = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
            body = iv + e.update(text(payload, 16)) + e.finalize()
        else:
            iv = struct.pack(">II", high, low)
            e = Cipher(algorithms.AES(key), modes.CTR(nonce + iv + b"\0\0\0\1")).encryptor()
            body = iv + e.update(text(payload, 4)) + e.finalize()
        tail = struct.pack(">I", high) if esn else b""
        tag = hmac.new(auth, head + body + tail, getattr(hashlib, name)).digest()[:icv]
        return key + nonce, auth, head + body + tag
    return seal


def suites():
    for bits in 128, 192, 256:
        for icv in 16, 12, 8:
            yield f"aes{bits}gcm{icv}", aead("gcm", bits, icv)
            yield f"aes{bits}ccm{icv}", aead("ccm", bits, icv)
        yield f"aes{bits}gmac", aead("gmac", bits, 16)
        for name in HASHES:
            yield f"aes{bits}-{name}", etm("cbc", bits, name)
            yield f"aes{bits}ctr-{name}", etm("ctr", bits, name)
    yield "chacha20poly1305", aead("chacha", 256, 16)
    for name in HASHES:
        yield f"null-{name}", etm("null", 0, name)


print("# Made by made.py; the payload is the bytes 00 01 02 ... of that length.")
print(f"source = Python cryptography {cryptography.__version__}, by made.py")
for suite, seal in suites():
    for low, high, esn, length in (7, 0, 0, 21), (9, 1, 1, 196):
        key, auth, packet = seal(low, high, esn, count(0, length))
        print(f"\nname = {suite}, {'esn' if esn else 'no esn'}")
        print(f"suite = {suite}")
        print(f"encryption-key = {key.hex()}")
        print(f"integrity-key = {auth.hex()}")
        if esn:
            print(f"esn = 1\nhigh = {high}")
        print(f"payload-length = {length}\nnext-header = 4\npacket = {packet.hex()}")
