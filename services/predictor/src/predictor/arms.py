"""Which arm of a canary answers a request, and which requests a shadow scores too.

The arm is chosen once for a request, by its first row: an answer names one `model_version`. A hash of the release and
the row's entity key places the entity between 0 and 1; below the canary's share the challenger answers. So an entity
stays with its arm, raising the share moves entities to the challenger only, and another canary has other entities. The
champion answers requests that bring features: they name no entity, and they are those of the champion. A shadow scores
those as well, chosen by the id of their first answer in an entity's place.
"""

import hashlib

_SPACE = 2**64


def takes_challenger(version: str, entity: str, share: float) -> bool:
    """Whether `entity` belongs to the share of the challenger `version`."""
    digest = hashlib.sha256(f"{version}\0{entity}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * _SPACE
