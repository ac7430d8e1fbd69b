"""Which tests run on streams as they do on files, and which cannot, with the reason."""

from __future__ import annotations

# The files whose tests take their store from `make_store`, below tests/. `nox -s stream` runs them.
FILES = (
    "engine/test_subscription.py",
    "memory/test_ask.py",
    "memory/test_collections.py",
    "memory/test_fork.py",
    "memory/test_frame_input.py",
    "memory/test_frame_sessions.py",
    "memory/test_frames.py",
    "memory/test_re_embedding.py",
    "memory/test_replace.py",
    "memory/test_saved_index.py",
    "memory/test_views.py",
    "memory/test_why.py",
    "recording/test_in_force.py",
    "recording/test_numbers.py",
    "recording/test_raw_output.py",
    "recording/test_recording.py",
    "recording/test_sessions.py",
    "recording/test_unrecorded.py",
    "replay/test_audit.py",
    "replay/test_compare.py",
    "replay/test_replay.py",
    "replay/test_replay_concurrent.py",
    "replay/test_replay_memory.py",
    "replay/test_serve.py",
    "store/test_new_messages.py",
    "store/test_prune.py",
    "store/test_queries.py",
    "store/test_store.py",
)
# Those that run on a stream always, beside the file: one of each kind.
ALWAYS = (
    "memory/test_collections.py::test_keys_are_ordered_and_cut_at_slashes",
    "memory/test_frames.py::test_what_is_put_comes_back",
    "recording/test_sessions.py::test_any_number_at_once_each_holds_its_own",
    "recording/test_sessions.py::test_two_tasks_never_both_start_the_ambient_session",
    "replay/test_replay.py::test_from_a_checkpoint_and_until_an_action",
    "replay/test_serve.py::test_an_unchanged_agent_is_told_the_same_and_nothing_runs",
)

_BYTES = "it looks at the file's bytes, or changes them"
_OPENED = "it opens the file by its path, in a process or a store of its own"
_SIZE = "it counts what is written to a file"
_BUFFERED = "what is BUFFERED on a file is acked once it is in the stream"
CANNOT = {
    "memory/test_collections.py::test_reading_prolongs_a_life_where_asked": _SIZE,
    "memory/test_collections.py::test_values_are_found_by_meaning": _OPENED,
    "memory/test_collections.py::test_a_compaction_erases_what_nobody_can_get": _BYTES,
    "memory/test_frame_input.py::test_a_long_stream_holds_little_in_memory": (
        "up to mirror_bytes of a stream are held in memory"
    ),
    "memory/test_frame_input.py::test_a_stream_is_kept_in_parts_and_comes_back_whole": _BYTES,
    "memory/test_frame_input.py::test_a_stream_that_ends_in_the_middle_leaves_nothing_to_be_seen": (
        _BYTES
    ),
    "memory/test_frame_sessions.py::test_the_action_of_a_put_shares_the_bytes_of_its_frame": _SIZE,
    "memory/test_frames.py::test_a_follower_sees_the_frames_of_another": _OPENED,
    "memory/test_frames.py::test_two_stores_write_into_one_memory": _OPENED,
    "memory/test_saved_index.py::"
    "test_an_almost_full_disk_has_no_saved_index_and_a_store_that_goes_on": (
        "a server that is full says so itself"
    ),
    "memory/test_saved_index.py::test_saves_do_not_pile_up": _SIZE,
    "recording/test_raw_output.py::test_it_is_read_again_and_erased_with_its_session": _BYTES,
    "engine/test_subscription.py::test_one_session_while_events_wait_for_the_disk": _BUFFERED,
    "memory/test_fork.py::test_a_fork_outlives_its_parent_and_a_compaction": _BYTES,
    "memory/test_saved_index.py::test_small_memories_are_not_saved": _SIZE,
    "recording/test_recording.py::test_large_content_is_kept_once_however_often_it_is_recorded": (
        _SIZE
    ),
    "recording/test_recording.py::test_what_is_over_a_limit_records_nothing": _BYTES,
    "recording/test_recording.py::test_a_growing_chat_is_kept_once": _SIZE,
    "recording/test_recording.py::test_a_chat_goes_on_sharing_after_the_file_was_opened_again": (
        _SIZE
    ),
    "store/test_prune.py::test_it_compacts_where_enough_would_be_erased": _SIZE,
    "store/test_store.py::test_there_is_one_file_and_nobody_else_may_read_it": _BYTES,
    "store/test_store.py::test_a_creation_that_was_killed_opens_as_new_for_writing": _BYTES,
    "store/test_store.py::test_what_a_read_only_store_refuses_and_what_it_answers": _OPENED,
    "store/test_store.py::test_the_statistics_count": "the path is an address",
    "store/test_store.py::test_verify_finds_a_flipped_bit_and_says_where": _BYTES,
    "store/test_store.py::test_a_torn_tail_is_reported_and_cut_by_a_writer_only": _BYTES,
    "store/test_store.py::test_a_file_that_was_deleted_or_replaced_is_not_written_any_more": _BYTES,
    "store/test_store.py::test_a_lock_held_elsewhere_is_waited_for_and_then_named": (
        "a stream has no lock"
    ),
    "store/test_store.py::test_content_is_still_kept_once_when_the_last_toc_was_not_pointed_at": (
        _BYTES
    ),
}


if __name__ == "__main__":
    import sys

    import pytest

    sys.exit(pytest.main(["-k", "not uvloop", *sys.argv[1:], *(f"tests/{file}" for file in FILES)]))
