"""What threads of a process see of the membership while one of them reads it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from celery_chain_router.membership import View
from celery_chain_router.sharing import Sharing

READ = View(1, {})


def test_nobody_goes_on_with_a_view_that_another_thread_is_still_taking_over():
    """The second of two that make the first call together hears that nothing is new: the first has read it."""
    membership = SimpleNamespace(view=lambda known: known if known.epoch == READ.epoch else READ)
    began, goes_on, adopted = threading.Event(), threading.Event(), []

    def adopt(view):
        if not began.is_set():
            began.set()
            goes_on.wait(30)
        adopted.append((threading.current_thread().name, view))

    sharing = Sharing(lambda: membership, adopt)
    first = threading.Thread(target=sharing.touch, name="first")
    first.start()
    assert began.wait(30)
    second = threading.Thread(target=sharing.touch, name="second")
    second.start()
    second.join(30)
    assert adopted == [("second", READ)]
    goes_on.set()
    first.join(30)
    assert adopted == [("second", READ), ("first", READ)]
    sharing.refresh()
    assert len(adopted) == 2
