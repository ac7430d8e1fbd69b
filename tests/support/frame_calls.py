"""What tests of the memory ask of a store or a view."""


async def ids_of(store, query, **rest):
    return [hit.frame_id for hit in (await store.find(query, **rest)).hits]


async def all_ids(store, **rest):
    return [frame.frame_id async for frame in store.frames(**rest)]


async def body(store, frame_id):
    return await store.read_content((await store.get(frame_id)).content)


async def actions_of(store, recorder):
    return (await store.get_session(recorder.session_id)).actions


async def stream(*chunks):
    for chunk in chunks:
        yield chunk
