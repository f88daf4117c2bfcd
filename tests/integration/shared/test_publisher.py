import time

import pytest

from esteira.events import Message
from esteira.exceptions import BadInput, Unavailable
from esteira.publisher import MAX_BYTES, Publisher


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, pubsub_project: str) -> Publisher:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    return Publisher(pubsub_project, timeout=1.0)


def test_no_confirmation_is_unavailable_within_the_timeout(nobody):
    began = time.monotonic()
    with pytest.raises(Unavailable, match="retrain-requested"):
        nobody.publish(Message("retrain-requested", b"{}", {"ce-id": "1"}))
    assert time.monotonic() - began < 10
    nobody.close()


def test_each_message_has_its_own_answer(nobody):
    large = Message("retrain-requested", b"x" * (MAX_BYTES + 1), {})
    errors = nobody.publish_many([large, Message("retrain-requested", b"{}", {})])
    assert [type(error) for error in errors] == [BadInput, Unavailable]
    nobody.close()
