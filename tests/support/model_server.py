"""A server of model APIs on the loopback interface: OpenAI chat and responses, Anthropic messages.

It answers a question with the question in capitals, after calling the first tool that it is
offered. The name of the model says what goes wrong: "busy N" answers its first N requests with 429,
"broken" ends a stream half-way, "refused" is not found, "silent" hangs up.
"""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

from tests.support.loops import turns

TOOL_ARGUMENTS = '{"city": "Oslo"}'
USAGE = (9, 4, 3)  # tokens in, out, and read from a cache


class Server:
    """``requests``: the paths of all requests. ``headers``: those of the last one.

    ``on_request`` is called after each request was read, before it is answered.
    """

    def __init__(self):
        self.requests = []
        self.headers = {}
        self.port = 0
        self.on_request = lambda: None
        self._busy = {}
        self._connections = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def serve(self, reader, writer):
        """Serve a connection, in a task that ends with the server."""
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(serving)
        serving.add_done_callback(self._connections.discard)

    async def close(self):
        connections = list(self._connections)
        for one in connections:
            one.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader, writer):
        try:
            await self._answer_all(reader, writer)
        finally:
            writer.close()

    async def _answer_all(self, reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                method, path, _ = first.split()
                pairs = (line.split(": ", 1) for line in lines if line)
                self.headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(self.headers.get("content-length", 0)))
                self.requests.append(path)
                self.on_request()
                parts, status, kind = self.answer(method, path, body)
                if parts is None:
                    break
                await self.send(writer, status, kind, parts, path)
                if parts[-1] is None:
                    break

    async def send(self, writer, status, kind, parts, path):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nx-request-id: req_123\r\n"
        head += "set-cookie: sid=cookie-of-the-server\r\nretry-after-ms: 1\r\n"
        writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        for part in parts:
            if part is not None:
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await writer.drain()
                # Its reader gets the parts one by one.
                await turns(1)
        if parts[-1] is None:
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def answer(self, method, path, body):
        """Return the parts of the body (None for one that breaks off), the status, the type."""
        try:
            asked = json.loads(body) if body else {}
        except ValueError:
            asked = {}
        model = asked.get("model", "")
        path = path.partition("?")[0]
        if model == "silent":
            return None, 0, ""
        if model == "refused":
            return [error("no such model")], 404, "application/json"
        if model.startswith("busy"):
            left = self._busy.setdefault(model, int(model.split()[1]))
            if left:
                self._busy[model] = left - 1
                return [error("slow down")], 429, "application/json"
        for end, form in FORMS.items():
            if path.endswith(end):
                answered = form(asked)
                if isinstance(answered, list):
                    if model == "broken":
                        answered = [*answered[: len(answered) // 2], None]
                    return answered, 200, "text/event-stream"
                return [json.dumps(answered).encode()], 200, "application/json"
        echoed = {"method": method, "path": path, "key": self.headers.get("authorization")}
        return [json.dumps(echoed).encode()], 404 if "missing" in path else 200, "application/json"


def error(message):
    inner = {"type": "rate_limit", "message": message}
    return json.dumps({"type": "error", "error": inner}).encode()


def reply(question):
    """What it answers: a text, in pieces."""
    words = question.upper().split()
    return [word + " " for word in words[:-1]] + words[-1:]


def event(data, name=None):
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def said(messages):
    """The text of the last message of a user, and how many answers of tools there are."""
    text, answers = "", 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            answers += sum(part.get("type") == "tool_result" for part in content)
            content = next((part["text"] for part in content if "text" in part), None)
        answers += message.get("role") == "tool"
        answers += message.get("type") == "function_call_output"
        if message.get("role") == "user" and isinstance(content, str):
            text = content
    return text, answers


def tool_of(asked, answers):
    """The tool to call next: each that is offered is called once, in order."""
    tools = asked.get("tools") or []
    if answers >= len(tools):
        return None
    tool = tools[answers]
    return tool.get("name") or tool["function"]["name"]


def chat(asked):
    text, answers = said(asked["messages"])
    tool = tool_of(asked, answers)
    usage = {
        "prompt_tokens": USAGE[0],
        "completion_tokens": USAGE[1],
        "total_tokens": sum(USAGE[:2]),
        "prompt_tokens_details": {"cached_tokens": USAGE[2]},
    }
    made = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    function = {"name": tool, "arguments": TOOL_ARGUMENTS}
    call = {"index": 0, "id": f"call_{answers + 1}", "type": "function", "function": function}
    end = "tool_calls" if tool else "stop"
    if not asked.get("stream"):
        message = {"role": "assistant", "content": None if tool else "".join(reply(text))}
        if tool:
            message["tool_calls"] = [call]
        choice = {"index": 0, "finish_reason": end, "message": message}
        return {**made, "object": "chat.completion", "choices": [choice], "usage": usage}
    deltas = [{"tool_calls": [call]}] if tool else [{"content": piece} for piece in reply(text)]
    chunks = [
        {"index": 0, "delta": delta, "finish_reason": None}
        for delta in [{"role": "assistant"}, *deltas]
    ]
    chunks.append({"index": 0, "delta": {}, "finish_reason": end})
    kind = {**made, "object": "chat.completion.chunk"}
    last = {**kind, "choices": [], "usage": usage}
    return [event({**kind, "choices": [one]}) for one in chunks] + [event(last), event("[DONE]")]


def responses(asked):
    messages = asked["input"]
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    text, answers = said(messages)
    tool = tool_of(asked, answers)
    usage = {
        "input_tokens": USAGE[0],
        "output_tokens": USAGE[1],
        "total_tokens": sum(USAGE[:2]),
        "input_tokens_details": {"cached_tokens": USAGE[2]},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    if tool:
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": f"call_{answers + 1}",
            "name": tool,
            "arguments": TOOL_ARGUMENTS,
            "status": "completed",
        }
    else:
        content = [{"type": "output_text", "text": "".join(reply(text)), "annotations": []}]
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    made = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": asked["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    if not asked.get("stream"):
        return made
    place = {"output_index": 0, "item_id": item["id"]}
    begun = {"arguments": ""} if tool else {"content": []}
    pieces = [
        {"type": "response.created", "response": {**made, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "item": {**item, **begun}, **place},
    ]
    if tool:
        pieces.append(
            {
                "type": "response.function_call_arguments.delta",
                "delta": TOOL_ARGUMENTS,
                **place,
            }
        )
    else:
        part = {"type": "output_text", "text": "", "annotations": []}
        pieces.append(
            {"type": "response.content_part.added", "part": part, "content_index": 0, **place}
        )
        pieces += [
            {
                "type": "response.output_text.delta",
                "delta": piece,
                "content_index": 0,
                "logprobs": [],
                **place,
            }
            for piece in reply(text)
        ]
    pieces.append({"type": "response.output_item.done", "item": item, **place})
    pieces.append({"type": "response.completed", "response": made})
    return [event({**p, "sequence_number": n}, p["type"]) for n, p in enumerate(pieces)]


def messages(asked):
    text, answers = said(asked["messages"])
    tool = tool_of(asked, answers)
    usage = {
        "input_tokens": USAGE[0] - USAGE[2],
        "cache_read_input_tokens": USAGE[2],
        "cache_creation_input_tokens": 0,
        "output_tokens": USAGE[1],
    }
    if tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool}
        content = [{**block, "input": json.loads(TOOL_ARGUMENTS)}]
    else:
        block = {"type": "text"}
        content = [{**block, "text": "".join(reply(text))}]
    made = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not asked.get("stream"):
        return {**made, "content": content}
    begun = {**made, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    empty = {**block, "input": {}} if tool else {**block, "text": ""}
    if tool:
        deltas = [{"type": "input_json_delta", "partial_json": TOOL_ARGUMENTS}]
    else:
        deltas = [{"type": "text_delta", "text": piece} for piece in reply(text)]
    pieces = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": made["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": USAGE[1]},
        },
        {"type": "message_stop"},
    ]
    return [event(piece, piece["type"]) for piece in pieces]


FORMS = {"/chat/completions": chat, "/responses": responses, "/v1/messages": messages}


@asynccontextmanager
async def model_server():
    """Run a server; yield it."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.close()
