"""What a REPL and a notebook print of public values: short, safe, and of use."""

import re
import uuid
from html.parser import HTMLParser

import pytest

from memvid_async import (
    Action,
    ActionKind,
    AskDetails,
    AuditAnswer,
    AuditReport,
    ChangedAction,
    Comparison,
    Content,
    Difference,
    FindResult,
    Hit,
    Limits,
    ModelAudit,
    RecordingConfig,
    ReplayReport,
    ReplayStep,
    Session,
    StoreConfig,
    Verdict,
    open_store,
)
from memvid_async.events.printing import ROWS, brief, html_table

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
HOSTILE = "<script>alert('x')</script>&\x00\x1b[31m\u202e\n\n" + "x" * 10_000
MANY = 10_000


def action(index, text="a question"):
    details = AskDetails("here", text, (), 0)
    data = Content(text)
    return Action(index, index + 2, 0, ActionKind.ASK, details, data, data, (), 1.5, error=text)


def session(count, text="a question"):
    actions = tuple(action(index, text) for index in range(count))
    return Session(ONE, text[:256], 1, None, None, actions, (), {"note": text}, 1)


def found(count, text="a snippet"):
    hits = tuple(Hit(i, 1.0, text, text, text) for i in range(count))
    return FindResult(hits, "lexical", 5, 0.5, 2)


def compared(count, text="query"):
    one = action(0, text)
    differences = (Difference(text, text, text, text),)
    changed = (ChangedAction(one, one, differences),) * count
    return Comparison(ONE, TWO, 0, (one,) * count, (one,) * count, changed, ((one, one),) * count)


def report(count, text="it was erased"):
    steps = [ReplayStep(i, action(i, text), Verdict.MATCHED, text) for i in range(count)]
    if steps:
        last = Difference("query", text, text, text)
        steps[-1] = ReplayStep(count - 1, action(0), Verdict.DIVERGED, text, (last,))
    verdicts = dict.fromkeys(Verdict, 0) | {Verdict.MATCHED: count - 1, Verdict.DIVERGED: 1}
    return ReplayReport(ONE, verdicts, tuple(steps))


def audited(count, text="small"):
    audits = tuple(ModelAudit(text[:256], 1, 2, 3, 4, 5.0, 6, 7, 8, 0.5) for _ in range(count))
    answers = tuple(
        AuditAnswer(i, action(i, text), text, Verdict.DIVERGED, text, text) for i in range(count)
    )
    return AuditReport(ONE, audits, answers)


TABLES = {
    "session": session,
    "audit": audited,
    "hits": found,
    "comparison": compared,
    "replay": report,
}


class Table(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert dict(attrs).keys() <= {"colspan"}
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("count", [0, 1, ROWS, MANY])
def test_a_repr_and_a_table_stay_small(name, count):
    value = TABLES[name](count, HOSTILE)
    assert len(repr(value)) < 1_000
    page = value._repr_html_()
    assert len(page) < 100_000
    rows = Table(page).tags.count("tr")
    assert rows <= ROWS + 2
    assert ("more" in Table(page).text) == (count > ROWS or (name == "comparison" and count > 6))


@pytest.mark.parametrize("name", TABLES)
def test_recorded_text_stays_text(name):
    page = TABLES[name](3, HOSTILE)._repr_html_()
    table = Table(page)
    assert set(table.tags) <= {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert "<script>alert('x')" in table.text
    assert page.replace("\n", "").isprintable()


def test_a_table_says_what_there_is():
    text = Table(session(30)._repr_html_()).text
    assert "30 actions" in text
    assert "… and 10 more" in text
    assert re.search(r"0\nask\na question\na question\na question\n1.5\n", text)
    assert "2 frames erased since" in Table(found(1)._repr_html_()).text
    # What diverged is the first row, wherever in the session it was.
    assert re.search(r"reason\n29\nask\ndiverged\n", Table(report(30)._repr_html_()).text)
    told = Table(compared(1)._repr_html_()).text
    assert re.search(r"0\n0\nask\nquery\n0\nask\nonly in a\n0\nask\nonly in b\n", told)


def test_only_the_rows_that_are_shown_are_made():
    made = []

    def rows():
        for number in range(MANY):
            made.append(number)
            yield (number,)

    html_table("numbers", ("number",), rows(), MANY)
    assert len(made) == ROWS


def test_a_session_prints_counts():
    assert "actions=<10,000 actions>, checkpoints=<0 checkpoints>" in repr(session(MANY))
    assert "actions=<1 action>" in repr(session(1))


def test_settings_print_what_is_set():
    assert repr(StoreConfig()) == "StoreConfig()"
    assert repr(Limits(top_k=5)) == "Limits(top_k=5)"
    config = StoreConfig(recording=RecordingConfig(max_actions=3), flush_interval=1)
    shown = "StoreConfig(recording=RecordingConfig(max_actions=3), flush_interval=1)"
    assert repr(config) == shown
    assert eval(shown) == config


@pytest.mark.parametrize(
    "value", [HOSTILE, {"a": HOSTILE}, [1] * MANY, {i: i for i in range(MANY)}]
)
def test_a_brief_repr_is_brief(value):
    assert len(brief(value)) < 400


async def test_what_is_open_says_how_it_is(tmp_path):
    path = tmp_path / "s.mva"
    opening = open_store(path)
    assert repr(opening).startswith(f"<open_store({str(path)!r}): await it, or use it in")
    store = await opening
    await store.put("a frame")
    recorder = store.session("one")
    assert repr(recorder).endswith(": to be entered by async with>")
    async with recorder:
        assert repr(recorder) == f"<SessionRecorder of {recorder.session_id}: entered>"
        await store.put("another")
        shown = "5 events, 1 session (1 open), 2 frames>"
        assert repr(store) == f"<Store {str(path)!r}: {shown}"
    assert repr(recorder).endswith(": left>")
    assert repr(await store.at(sequence=3)) == "<StoreView of the moment after event 3>"
    replay = store.replay(recorder.session_id, checkpoint_id=2, before_index=5)
    assert f"{recorder.session_id} from checkpoint 2 before action 5" in repr(replay)
    async with store.serve(recorder.session_id, missing="run") as served:
        assert f"of {recorder.session_id}: 0 calls left, recording into " in repr(served)
    async with store.subscribe() as events:
        assert repr(events) == "<Subscription: behind, last delivered event 0>"
        await anext(events)
        assert repr(events).endswith("last delivered event 1>")
    assert repr(events).startswith("<Subscription: closed")
    async with open_store(path, read_only=True) as follower:
        assert f"<Store {str(path)!r}: read-only, " in repr(follower)
    await store.aclose()
    assert repr(store) == f"<Store {str(path)!r}: closed>"
