# cython: language_level=3, boundscheck=False, wraparound=False
"""The actions of :mod:`.staging`, compiled; every other command, and the end of a call, is left to
that module. A test holds both to one slow reference, byte for byte."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Contains, PyDict_SetItem
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_SET_ITEM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from zlib import crc32

from ..config import DEFAULT_RECORDING
from ..core.commands import RecordAction
from ..core.map_draft import MapDraft
from ..core.session_state import SessionState, Sums
from ..core.state import State
from ..events.decided import DecidedAction, DecidedEvent
from ..events.details import ActionKind
from ..events.event import action_of
from ..events.values import checked_time
from ..format.action_rows import action_row
from ..format.call_rows import NUMBERS
from ..format.segment import HEAD_SIZE, SegmentKind
from . import catalog as tables
from .staging import stage_run as stage_others

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyType_GenericAlloc(type kind, Py_ssize_t count)

cdef enum:
    MOST_BYTES = 8192  # of an action's fields; what is longer is left
    MOST_FRONT = 64  # of what is before them: five numbers
    MOST_DEPTH = 3  # of arrays in a field

cdef dict KINDS = NUMBERS, SUMMED = {ActionKind.ASK: 0, ActionKind.TOOL_CALL: 1}  # a place in `Sums`
cdef object DEFAULT = DEFAULT_RECORDING, PLAIN = RecordAction, crc = crc32, MOST_PLACE = 1 << 62
cdef uint64_t HEAD = HEAD_SIZE, EVENTS = SegmentKind.EVENTS


# CBOR (RFC 8949, 3.1). Each function returns where the bytes end that it wrote at ``to``.

cdef inline uint8_t* write_head(uint8_t* to, int kind, uint64_t count):
    cdef int width, i
    cdef uint8_t first = <uint8_t>(kind << 5)
    if count < 24:
        to[0] = first | <uint8_t>count
        return to + 1
    if count < 1 << 8:
        to[0], width = first | 24, 1
    elif count < 1 << 16:
        to[0], width = first | 25, 2
    elif count < <uint64_t>1 << 32:
        to[0], width = first | 26, 4
    else:
        to[0], width = first | 27, 8
    for i in range(width):
        to[width - i] = <uint8_t>(count >> (8 * i))
    return to + 1 + width


cdef inline uint8_t* write_number(uint8_t* to, int64_t number):
    return write_head(to, 0, number) if number >= 0 else write_head(to, 1, -1 - number)


cdef uint8_t* write_field(uint8_t* to, uint8_t* end, object value, int depth) except? NULL:
    """NULL without an error: it is left, being long or of a type few fields are."""
    cdef Py_ssize_t size = 0
    cdef const char* data
    cdef int i, overflow = 0
    cdef int64_t number
    cdef double real
    cdef uint64_t bits
    cdef object kind = type(value)
    if end - to < 16:
        return NULL
    if value is None:
        to[0] = 0xF6
        return to + 1
    if kind is str or kind is bytes:
        if kind is str:
            data = PyUnicode_AsUTF8AndSize(value, &size)
        else:
            data, size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        if end - to < size + 16:
            return NULL
        to = write_head(to, 3 if kind is str else 2, size)
        memcpy(to, data, size)
        return to + size
    if kind is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return NULL if overflow else write_number(to, number)
    if kind is float:
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        to[0] = 0xFB
        for i in range(8):
            to[8 - i] = <uint8_t>(bits >> (8 * i))
        # Of what is not finite there is a shorter form.
        return to + 9 if real - real == 0 else NULL
    if (kind is tuple or kind is list) and depth < MOST_DEPTH:
        to = write_head(to, 4, len(value))
        for each in value:
            to = write_field(to, end, each, depth + 1)
            if to is NULL:
                return NULL
        return to
    return NULL


cdef inline void write_little(uint8_t* to, uint64_t number, int width):
    cdef int i
    for i in range(width):
        to[i] = <uint8_t>(number >> (8 * i))


# Named tuples: made and filled without a tuple to make them from.
cdef inline object item(object values, Py_ssize_t place):
    return <object>PyTuple_GET_ITEM(values, place)


cdef inline void fill(object values, Py_ssize_t place, object value):
    Py_INCREF(value)
    PyTuple_SET_ITEM(values, place, value)


cdef class Run:
    """Commands that a journal stages in a row. What each of them changes of its file is held here
    until another one needs it: see `load` and `save`."""

    cdef object journal, file, catalog, clock, state, sessions, opened, found, salt
    cdef object positions, changed, full
    cdef list buffer
    cdef bint keeps
    cdef int64_t sequence, time_ns, end, checksum_at, due_at, mark_at, most_places
    cdef uint32_t checksum

    def __init__(self, journal):
        self.journal, self.clock, self.keeps = journal, journal._clock, journal.keeps_events
        self.load()

    cdef load(self):
        file = self.file = self.journal._file
        state, catalog = file.state, file.catalog
        self.state, self.catalog, self.buffer, self.salt = state, catalog, file._buffer, file._salt
        self.sequence, self.time_ns = state.last_sequence, state.last_time_ns
        self.sessions, self.opened = state.sessions, state.sessions.open
        self.found = self.opened._found if type(self.opened) is MapDraft else None
        self.end, self.checksum, self.checksum_at = file._end, file._checksum, file._checksum_at
        self.positions, self.full = catalog.positions, catalog._full
        self.changed = catalog.open.changed
        # A damaged file may say anything; nothing lies as far as this.
        self.due_at = min(catalog._toc_end + catalog._toc_interval, MOST_PLACE)
        marks, self.most_places = catalog.mark_offsets, tables.CHUNK - 1
        self.mark_at = min(marks[len(marks) - 1] + tables.MARK_BYTES, MOST_PLACE) if marks else 0

    cdef save(self):
        file = self.file
        if self.sequence == file.state.last_sequence:
            return
        file.state = State(self.sequence, self.time_ns, self.sessions, *self.state[3:])
        if not file._in_run:
            file._shown = file.state
        file._end, file._checksum, file._checksum_at = self.end, self.checksum, self.checksum_at

    cdef object stage(self, object command):
        """Return its answer, or None where it is not plain: then nothing has changed."""
        cdef uint8_t row[MOST_BYTES]
        cdef uint8_t* to = row
        cdef int overflow = 0
        cdef int64_t now
        if type(command) is not PLAIN:
            return None
        number, fields, extras = item(command, 0), item(command, 2), item(command, 3)
        if extras is not None and (extras.call is not None or extras.messages is not None):
            return None
        try:
            chosen = self.opened.get if type(number) is int else self.state.in_force
            session = chosen(number)
            if session is None or item(session, 0).config is not DEFAULT:
                return None
            number = item(session, 0).number
            # What is due is saved before the action is; its session's first place is a new one.
            if self.end >= self.due_at or self.full or number not in self.positions:
                return None
            if extras is not None:
                fields = action_row(DecidedAction(None, 0, 0, 0, item(command, 1), fields, extras))[2:]
            for field in fields:
                to = write_field(to, row + MOST_BYTES, field, 0)
                if to is NULL:
                    return None
            time = self.clock()
            now = PyLong_AsLongLongAndOverflow(time, &overflow) if type(time) is int else 0
            if overflow or type(time) is not int: checked_time(time)
            values = self.decided(command, session, time)
            sealed = self.sealed(row, to - row, len(fields), values, number, now)
        except BaseException as error:
            return self.journal.refused(error)
        self.append(sealed, number, now)
        self.fold(session, values, number)
        self.note(number, 4 + PyBytes_GET_SIZE(sealed), values)
        return action_of(values)

    cdef object decided(self, object command, object session, object time):
        cdef Py_ssize_t i
        values = PyType_GenericAlloc(DecidedAction, 7)
        fill(values, 0, item(session, 0).session_id)
        fill(values, 1, item(session, 3))
        fill(values, 2, self.sequence + 1)
        fill(values, 3, time)
        for i in range(4, 7):
            fill(values, i, item(command, i - 3))
        return values

    cdef bytes sealed(self, uint8_t* row, Py_ssize_t size, int count, values, number, int64_t now):
        """Return the segment, without the checksum that it begins with."""
        cdef uint8_t front[MOST_FRONT]
        cdef uint8_t* to = write_head(front, 4, count + 4)
        to = write_number(to, now)
        to = write_number(to, number)
        to = write_number(to, KINDS[item(values, 4)])
        to = write_number(to, item(values, 1))
        cdef Py_ssize_t before = to - front
        cdef bytes segment = PyBytes_FromStringAndSize(NULL, HEAD - 4 + before + size)
        to = <uint8_t*>PyBytes_AS_STRING(segment)
        write_little(to, before + size, 4)
        write_little(to + 4, self.checksum, 4)
        write_little(to + 8, EVENTS << 56 | <uint64_t>(self.sequence + 1), 8)
        memcpy(to + 16, front, before)
        memcpy(to + 16 + before, row, size)
        return segment

    cdef append(self, bytes segment, number, int64_t now):
        cdef uint8_t written[4]
        self.checksum = crc(segment, self.salt)
        write_little(written, self.checksum, 4)
        self.buffer += (PyBytes_FromStringAndSize(<char*>written, 4), segment)
        self.checksum_at = self.end
        self.end += 4 + PyBytes_GET_SIZE(segment)
        self.sequence, self.time_ns = self.sequence + 1, now

    cdef fold(self, object session, object values, object number):
        cdef Py_ssize_t i
        acted, sums = PyType_GenericAlloc(SessionState, 10), item(session, 9)
        place, extras = SUMMED.get(item(values, 4)), item(values, 6)
        if extras is not None:
            sums = sums.adding(item(values, 4), extras.error, extras.reply)
        elif place is not None:
            added = PyType_GenericAlloc(Sums, 7)
            for i in range(7):
                fill(added, i, item(sums, i) + 1 if i == <Py_ssize_t>place else item(sums, i))
            sums = added
        for i in (0, 2, 4, 6, 7, 8):
            fill(acted, i, item(session, i))
        fill(acted, 1, item(values, 3))
        fill(acted, 3, item(session, 3) + 1)
        fill(acted, 5, item(session, 5) + 1)
        fill(acted, 9, sums)
        if self.found is None:
            self.sessions = self.sessions.set_open(number, acted)
            self.opened = self.sessions.open
        else:
            PyDict_SetItem(self.found, number, acted)

    cdef note(self, object number, int64_t size, object values):
        """Note where the segment lies that was appended last, and keep its event for readers."""
        if self.checksum_at >= self.mark_at:
            self.catalog._mark(self.sequence, self.checksum_at)
            self.mark_at = self.checksum_at + <int64_t>tables.MARK_BYTES
        cdef list places = item(self.positions[number], 1)
        if PyList_GET_SIZE(places) < self.most_places:
            places.append(self.checksum_at)
        else:
            self.catalog._add(number, self.checksum_at)
        if not PyDict_Contains(self.changed, number):
            self.catalog.open.note(number)
        if self.keeps:
            event = (self.sequence, item(values, 3), item(values, 0), values, number)
            self.journal._staged.append(DecidedEvent(*event))
            self.journal._sizes.append(size)


def stage_run(journal, commands):
    """Return for each command what :meth:`.journal.Journal.stage` returns."""
    cdef Run run = Run(journal)
    cdef list outcomes = []
    for command in commands:
        outcome = run.stage(command)
        if outcome is None:
            run.save()
            outcome = stage_others(journal, (command,))[0]
            run.load()
        outcomes.append(outcome)
    run.save()
    return outcomes
