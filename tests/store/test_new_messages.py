"""Reading many asks' messages at once: those that an earlier ask has are named, not repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import InvalidValueError, MessageRun, open_store

MESSAGES = st.lists(
    st.lists(st.sampled_from([*range(9), "a" * 40, {"k": ["b" * 1100]}])), max_size=9
)


@given(prompts=MESSAGES)
async def test_what_is_named_and_what_is_new_make_up_the_messages(tmp_path_factory, prompts):
    path = tmp_path_factory.mktemp("new") / "m.mva"
    async with open_store(path) as store, store.session() as session:
        for prompt in prompts:
            await session.record_ask("a" * 40, response="r", messages=prompt)
        actions = (await store.get_session(session.session_id)).actions
        known = await store.read_new_messages(actions)
        for index, parts in enumerate(known):
            whole = []
            for part in parts:
                if isinstance(part, MessageRun):
                    assert part.index < index
                    whole += prompts[part.index][part.first : part.first + part.count]
                else:
                    whole.append(part)
            assert whole == prompts[index]


async def test_an_action_without_messages_has_none(make_store):
    store = await make_store()
    async with store.session() as session:
        look = await session.record_tool_call("look", arguments={})
        ask = await session.record_ask("?", response="!", messages=["hi"])
        assert await store.read_new_messages([look, ask]) == [[], ["hi"]]
        assert await store.read_new_messages([]) == []
        with pytest.raises(InvalidValueError, match="must be an Action"):
            await store.read_new_messages(["ask"])
