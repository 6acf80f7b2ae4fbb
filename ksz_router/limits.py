"""Every bound of the router, its unit in its name, and what must hold between them.

These are the bounds of the protocol and of the build; what an operator tunes stands in
``config.py`` and is checked against these.
"""

KIB = 1024
MIB = 1024 * KIB

# The privacy log: a flush that takes longer ends its worker.
flush_seconds_max = 20.0

# One frame. The payload leaves room for the largest header around it.
frame_bytes_max = 1 * MIB
payload_bytes_max = 1 * MIB - 64 * KIB
answer_header_bytes_max = 3_584
frame_length_bytes = 4

# Before a peer is known: the first frame is a Hello and is small.
hello_bytes_max = 4 * KIB
hello_seconds_max = 5.0
handshake_seconds_max = 5.0
first_byte_seconds_max = 3.0
handshakes_at_once_max = 256
connections_per_worker_max = 4_096
pending_per_worker_max = 2_048
pending_per_address_max = 64
handshakes_per_second_per_address_max = 20.0
handshakes_per_second_max = 200.0
connections_per_institution_max = 128
descriptors_reserved = 128
institutions_counted_max = 4_096  # of those turned away; at more their entries come at once

# Text and list fields of messages.
ticket_chars_max = 36
service_chars_max = 64
framework_chars_max = 64
means_chars_max = 32
agent_chars_max = 64
source_code_chars_max = 16
detail_chars_max = 256
details_max = 15
groups_max = 32
further_persons_max = 64
recipients_max = 64
envelope_requests_max = 64

# Windows: requests in flight. A connection may not fill an institution, nor that the router. One
# institution alone gets half of a source's, which takes several connections unless the operator
# lets one have more.
connection_inflight_default = 256
connection_inflight_max = 1_024
institution_inflight_max = 4_096
router_inflight_max = 16_384
source_inflight_max = 2_048

# Sources: the outcomes that a breaker judges the share of failures over; how many endpoints of one
# source are dialled at once; connections to an endpoint that end while others take over.
breaker_outcomes_kept = 20
source_dials_at_once_max = 8
source_draining_links_max = 4

# Bytes that all requests and answers of a worker may hold at once.
held_bytes_default = 256 * MIB
held_bytes_max = 2_047 * MIB

# Bytes waiting to be sent on one connection before reading from it stops, and before it closes.
connection_outgoing_soft_bytes = 1 * MIB
connection_outgoing_hard_bytes = 8 * MIB
tls_record_bytes_max = 16 * KIB  # of plain text; RFC 8446, section 5.1
read_bytes_max = 256 * KIB
buffered_bytes_max = 32 * KIB  # a buffer of TLS keeps the room of the most that it ever held
requester_read_bytes_max = 32 * KIB
links_per_turn_max = 256
events_per_receive_max = 256
requests_per_turn_max = 256
requester_events_per_turn_max = 32  # at more, who pipelines makes long turns for the others
slow_reader_seconds_max = 10.0
slow_sender_seconds_max = 10.0

# Time. A deadline counts from the moment the frame was read, queueing included.
deadline_ms_default = 10_000
deadline_ms_max = 60_000
ping_interval_seconds = 30.0
pong_seconds_max = 10.0
drain_seconds_max = 30.0

# The clock of the host. A larger step than the first is a jump, and is not gone along with: within
# a run of the log an outcome comes at most two deadlines after its request. A jump that lasts is
# taken for the truth after the second, if it is not larger than the third.
clock_step_seconds_max = 30.0
clock_hold_seconds = 150.0
clock_error_seconds_max = 7_200.0

# What a worker remembers of requesters whom nothing stands in the way of: 1 KiB each, about.
standings_kept_max = 16_384

# Directory.
person_numbers_max = 16
person_lines_max = 4_096
person_role_lines_max = 1_024

# The directory program. What of one transaction waits for its flush; what waits for a transaction:
# more than the windows of the workers for one source let in, unless there are very many of them.
# Where there always are some, a step of a mailbox is done all the same, so many seconds after the
# one before.
directory_batch_max = 1_024
directory_waiting_max = 16_384
directory_spare_seconds = 1.0

# Lines in an answer of the directory, of 28 bytes at most: those of some numbers that are full.
directory_lines_told_max = 32_768

# Mailboxes: files of changes. Of one sender so many may be on their way at once, of all so many. A
# step is what is recorded of a mailbox at once: about as much as can be done in the first time
# where somebody is served, and in the second where nobody is. While workers serve, a transaction
# takes so many lines, which is half a millisecond of the disk for them to wait. A mailbox that has
# waited for so many hours is applied without rests: a batch is to be done in four days.
mailbox_bytes_max = 256 * MIB
mailbox_part_bytes_min = 4 * KIB
mailbox_part_bytes_max = 768 * KIB
mailboxes_receiving_max = 8
mailboxes_unfinished_max = 1_024
mailbox_step_lines_max = 8_192
mailbox_step_lines_min = 64
mailbox_step_seconds_beside = 0.03
mailbox_step_seconds_alone = 0.1
mailbox_transaction_lines_beside = 8
mailbox_rests_hours_max = 24

# What became of numbers, told to institutions: at once of what is new, and of what is left.
notices_inflight_max = 8

# Sectoral directories that are asked for at their keepers: questions of one request at a time, how
# often more may follow from the answers, and how much of the time that is left they may take.
sectoral_questions_max = 64
sectoral_rounds_max = 8
sectoral_time_share = 0.5

# Privacy log.
group_records_max = 4_096
group_bytes_max = 1 * MIB
log_file_bytes = 64 * MIB
record_bytes_max = 4 * KIB

# The order and the tree of the privacy log. A cycle of the sequencer stops behind the frame that
# reaches one of the first two. A worker takes nothing new while the part of the log that is not
# under a checkpoint takes more than the share of the log's disk.
sequence_records_max = 262_144
sequence_bytes_max = 128 * MIB
unsequenced_share_max = 0.25

assert payload_bytes_max + answer_header_bytes_max < frame_bytes_max
assert answer_header_bytes_max < hello_bytes_max  # every peer takes an answer without a payload
assert hello_bytes_max <= frame_bytes_max
assert connection_inflight_default <= connection_inflight_max
assert connection_inflight_max <= institution_inflight_max <= router_inflight_max
assert 2 * connection_inflight_max <= source_inflight_max
assert frame_bytes_max <= connection_outgoing_hard_bytes
assert connection_outgoing_soft_bytes <= connection_outgoing_hard_bytes
assert first_byte_seconds_max <= handshake_seconds_max
assert clock_step_seconds_max * 1_000 < deadline_ms_max
assert clock_hold_seconds * 1_000 > 2 * deadline_ms_max
assert mailbox_part_bytes_max < payload_bytes_max
assert payload_bytes_max <= held_bytes_default <= held_bytes_max
assert deadline_ms_default <= deadline_ms_max
