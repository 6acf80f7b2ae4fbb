"""The salts of the leaves: a keystream, so that any one of them is computed by itself. Pure."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ksz_router.privacylog.tree.merkle import SALT_BYTES


class Salts:
    """Block i of AES-256-CTR under the commit key of a quarter is the salt of leaf i.

    The counter block is i as 16 bytes, big-endian. No leaf has the salt of another under one key,
    and the tree tells nothing of a record once that key is destroyed.
    """

    def __init__(self, commit_key: bytes) -> None:
        self._key = algorithms.AES256(commit_key)

    def run(self, first: int, count: int) -> bytes:
        """Return the salts of ``count`` leaves from leaf ``first`` on, 16 bytes each."""
        counter = modes.CTR(first.to_bytes(SALT_BYTES, "big"))
        return Cipher(self._key, counter).encryptor().update(bytes(SALT_BYTES * count))
