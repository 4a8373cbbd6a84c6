"""The judge: sees every step of every node and knows the truth; any promise that is not kept is a Violation.

The truth is the log as it was first committed, what it means (`model.Model`), what clients were told, and
what is on the disks. Checked after each step of a node:

- one leader a term, one vote a voter and term;
- log matching: an index and a term name one entry after one predecessor, on every node, for ever;
- leader completeness: a new leader has every entry that was committed before its term;
- a committed entry never changes, is durable on a majority when it is first committed, and no node
  without it could win an election at that moment;
- the commit index of a node never goes back while it runs, nor below what its disk promised;
- what a message promises (vote, term, entries) is durable before the message leaves;
- a node stops only because of its disk; a leader that was replaced soon stops believing;
- what a node knows to be complete as of some time was all that was committed at that time.
Checked at each applied step and each answer: outcomes and contents are the model's, each request is decided
once, no acknowledged write is lost, no refused one applied, reads are as fresh as their guarantee says.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import msgpack

from cluster.errors import NotHandedOver
from cluster.raft.configuration import decode_configuration, founding, is_configuration
from cluster.raft.messages import Accepted, Append, Heartbeat, HeartbeatReply, Vote, VoteReply
from cluster.state.commands import RaiseLevel, decode_group, level_of
from cluster.state.cursor import Cursor
from tests.simulation.members import held_on
from tests.simulation.model import Model
from tests.simulation.stepped import touched

if TYPE_CHECKING:
    from cluster.raft.interface import Configuration
    from cluster.raft.storage import Row
    from cluster.reads import Guarantee
    from cluster.state.catalog import Outcome
    from cluster.state.machine import Step
    from tests.simulation.cluster import Simulation
    from tests.simulation.process import Process


class Violation(Exception):
    """A promise was broken; `rule` is its short name."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule


class Judge:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.configuration = founding(simulation.founders)
        """The last that was committed."""
        self.configurations = [(0, self.configuration)]
        """All that were, with their indices."""
        self.model = Model(simulation.plan.limits)
        self._told: list[tuple[str, Outcome, int]] = []
        self.committed: list[tuple[int, int]] = []  # (term, crc) of entry 1, 2, ...
        self.leaders: dict[int, str] = {}
        self._newest_term = (0, 0.0)  # and when its leader came to be
        self._entries: dict[tuple[int, int], tuple[int, int]] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._committed_in: dict[int, int] = {}  # term of the committing node -> highest index
        self._durable_commit: dict[str, int] = {}
        self._raises: list[tuple[int, int]] = []  # (index, command level)
        self._steady: tuple[str, int] | None = None
        self.acked: dict[str, int] = {}
        """By collection: the highest log index that some client has been shown, by a write or a read."""
        self.reads = 0
        self.bounded_reads = 0
        self.writes = 0
        self._committed_at: list[float] = []  # true time of the first commit of entry 1, 2, ...

    # ------------------------------------------------------------------ nodes

    def on_start(self, process: Process) -> None:
        """A process has opened its disk."""
        journal, name = process.journal, process.node_id
        process.commit_seen = 0
        process.known_seen = float("-inf")
        process.led_term = 0
        if journal.commit_index < self._durable_commit.get(name, 0):
            raise Violation("commit never goes back", f"{name} starts at {journal.commit_index}")
        marker = process.disk.marker
        if process.disk.durable_marker != marker:
            raise Violation("applied is durable", f"{name} starts from {marker}, which is not synced")
        if not journal.base_index <= marker.index <= journal.last_index:
            raise Violation(
                "applied is in the log",
                f"{name} has applied {marker.index}, its log is {journal.base_index}..{journal.last_index}",
            )
        self._check_commits(process)
        append = journal.append

        def judged(term: int, payload: bytes, crc: int | None = None) -> Row:
            before = journal.last_term
            if is_configuration(payload):
                self._check_change(process, decode_configuration(payload))
            row = append(term, payload, crc)
            self._on_append(name, row, before)
            return row

        journal.append = judged  # type: ignore[method-assign]

    def _check_change(self, process: Process, after: Configuration) -> None:
        """A leader changes one voter at a time, and not before the former change is committed."""
        journal, node = process.journal, process.node
        if not node.is_leader:
            return
        before = journal.configuration
        if journal.configuration_index > len(self.committed):
            raise Violation(
                "one change at a time", f"{process.node_id} makes {after}, {before} is not committed"
            )
        for name in after.voters - before.voters:
            lacks = journal.last_index - self._simulation.disks[name].last_index
            if lacks > self._simulation.plan.settings.catch_up_entries:
                raise Violation("promoted when caught up", f"{name} lacks {lacks} entries")
        if len(after.voters ^ before.voters) > 1 or after.number != before.number + 1:
            raise Violation("one change at a time", f"{process.node_id} makes {after} of {before}")

    def on_wiped(self, name: str) -> None:
        """Its disk is empty: what it promised before is the matter of the others."""
        self._durable_commit.pop(name, None)
        self._votes = {key: vote for key, vote in self._votes.items() if key[0] != name}

    def _on_append(self, name: str, row: Row, previous_term: int) -> None:
        known = self._entries.setdefault((row.index, row.term), (row.crc, previous_term))
        if known != (row.crc, previous_term):
            raise Violation("log matching", f"{name} has another entry {row.index} of term {row.term}")

    def after_step(self, process: Process) -> None:
        node = process.node
        if node.halted and not process.disk.has_failed and not process.is_draining:
            raise Violation("no fault without cause", f"{process.node_id} stopped: {node.fault}")
        if node.commit_index != process.commit_seen:
            self._check_commits(process)
        if node.is_leader:
            self._check_leader(process)
        self._check_known(process)
        meta = process.disk.meta
        if meta is not None:
            self._durable_commit[process.node_id] = meta.commit_index

    def _check_leader(self, process: Process) -> None:
        node, name, now = process.node, process.node_id, self._simulation.scheduler.now
        term = node.term
        if process.led_term != term:
            process.led_term = term
            if self.leaders.setdefault(term, name) != name:
                raise Violation("one leader a term", f"{name} and {self.leaders[term]} lead term {term}")
            self._simulation.trace.add(now, name, "leads", term, "from", node.journal.last_index)
            if term > self._newest_term[0]:
                self._newest_term = (term, now)
            self._check_complete(process, term)
            self._simulation.on_new_leader(name)
            if self._steady is not None:
                raise Violation(
                    "a healthy leader stays",
                    f"{self._steady[0]} led term {self._steady[1]} with a majority in best health, "
                    f"but {name} leads term {term}",
                )
        self._check_matches(process, term)
        newest, since = self._newest_term
        if term < newest:
            plan = self._simulation.plan
            bound_s = plan.settings.election_timeout_ms[1] / 1000 + 0.2
            if now - max(since, process.resumed_s, self._simulation.slow_until_s) > bound_s:
                raise Violation("check-quorum", f"{name} still believes to lead term {term}, not {newest}")

    def _check_matches(self, process: Process, term: int) -> None:
        """What the leader counts for a follower is on that follower's disk."""
        journal = process.journal
        for peer, progress in process.node.replication.progress.items():
            index, disk = progress.match, self._simulation.disks[peer]
            if not index or index <= journal.base_index or disk.is_excused or disk.meta is None:
                continue
            if disk.meta.term <= term and not disk.holds(index, journal.term_at(index)):
                raise Violation(
                    "acks are true",
                    f"{process.node_id} in term {term} counts {index} for {peer}, which has it not",
                )

    def _check_complete(self, process: Process, term: int) -> None:
        journal = process.journal
        for earlier, index in self._committed_in.items():
            if earlier >= term or index <= journal.base_index:
                continue
            wanted = self.committed[index - 1][0]
            if index > journal.last_index or journal.term_at(index) != wanted:
                raise Violation(
                    "leader completeness",
                    f"{process.node_id} leads term {term} without entry {index}, committed in term {earlier}",
                )

    def _check_commits(self, process: Process) -> None:
        node, journal, name = process.node, process.journal, process.node_id
        index = node.commit_index
        if index < process.commit_seen:
            raise Violation("commit never goes back", f"{name}: {process.commit_seen} -> {index}")
        if index > journal.durable_index:
            raise Violation("committed is durable here", f"{name} commits {index}, not yet fsynced")
        for at in range(max(process.commit_seen, journal.base_index) + 1, index + 1):
            if at > len(self.committed):
                self._commit(process, at)
            elif journal.term_at(at) != self.committed[at - 1][0]:
                raise Violation(
                    "committed never changes",
                    f"entry {at} was committed with term {self.committed[at - 1][0]}, {name} commits it with "
                    f"term {journal.term_at(at)}",
                )
        process.commit_seen = index
        held = journal.committed_configuration
        known = [it for at, it in self.configurations if at <= max(index, journal.base_index)][-1]
        if held != known and (held.members or known.number):
            raise Violation("the members are those of the log", f"{name} at {index} has {held}, not {known}")
        self._committed_in[node.term] = max(self._committed_in.get(node.term, 0), index)

    def _commit(self, process: Process, index: int) -> None:
        """The first node to commit it: from now on it is for ever."""
        if index != len(self.committed) + 1:
            raise Violation("committed in order", f"{process.node_id} commits {index} first")
        [row] = process.journal.read(index, index, 1)
        if is_configuration(row.payload):
            self.configuration = decode_configuration(row.payload)
            self.configurations.append((index, self.configuration))
        voters = self.configuration.voters
        disks = [self._simulation.disks[name] for name in self._simulation.ids]
        holders = [disk.name for disk in disks if disk.is_excused or disk.holds(index, row.term)]
        now = process.journal.configuration.voters  # it may be in force for what stands before it, too
        if all(len(some.intersection(holders)) < len(some) // 2 + 1 for some in (voters, now)):
            raise Violation(
                "durable on a majority",
                f"{process.node_id} commits entry {index} of term {row.term}, on the disks of {holders} only",
            )
        for disk in disks:
            if not disk.has_vote or disk.holds(index, row.term):
                continue
            place = (disk.last_term, disk.last_index)
            votes = {
                other.name
                for other in disks
                if other.has_vote and place >= (other.last_term, other.last_index)
            }
            sets = held_on(disk).electorates
            if sets and all(len(votes & voters) > len(voters) // 2 for voters in sets):
                raise Violation(
                    "committed survives elections",
                    f"{process.node_id} commits entry {index} of term {row.term}, but {disk.name} without it "
                    f"could still be elected by {sorted(votes)}",
                )
        self.committed.append((row.term, row.crc))
        self._committed_at.append(self._simulation.scheduler.now)
        self._simulation.trace.add(
            self._simulation.scheduler.now, process.node_id, "commits", index, "of term", row.term
        )
        refused = len(self.model.refused)
        if not is_configuration(row.payload):
            self._check_levels(index, row.payload)
        self.model.apply(index, b"" if is_configuration(row.payload) else row.payload)
        if len(self.model.refused) > refused:
            # The log now says of an earlier write that it is refused: nobody may have been told otherwise.
            for refused_point in list(self.model.refused)[refused:]:
                self._check_is_poison(refused_point)
            for told in self._told:
                self._check_outcome("a client had been told before it was refused", *told)

    def _check_levels(self, index: int, payload: bytes) -> None:
        """Nothing above the level in force is proposed, and it rises only once every member understands."""
        for proposal in decode_group(payload).proposals if payload else ():
            command = proposal.command
            if level_of(command) > self.model.level:
                raise Violation("only what all understand is proposed", f"{command} at {self.model.level}")
            if isinstance(command, RaiseLevel):
                newest = {name: self._simulation.builds.newest[name] for name in self.configuration.ids}
                if min(newest.values()) < command.level:
                    raise Violation("only what all understand is proposed", f"{command}, {newest}")
                self._raises.append((index, command.level))

    def _complete_at(self, true_s: float) -> int:
        """How many entries were committed by then."""
        return bisect_right(self._committed_at, true_s - 1e-9)

    def _check_known(self, process: Process) -> None:
        """From it follows how old a read may be."""
        known = process.node.known()
        if known.as_of_s == process.known_seen:
            return
        process.known_seen = known.as_of_s
        as_of_s = process.clock.true_time(known.as_of_s)
        if as_of_s > self._simulation.scheduler.now + process.stall_s + 1e-9:
            raise Violation("what is known is complete", f"{process.node_id} knows the future, {as_of_s}")
        complete = self._complete_at(as_of_s)
        if known.index < complete:
            raise Violation(
                "what is known is complete",
                f"{process.node_id} ({process.node.role}) takes {known.index} for all that was committed at "
                f"{as_of_s:.6f}, when {complete} was",
            )

    def on_bounded_read(
        self,
        process: Process,
        guarantee: Guarantee,
        collection_id: str,
        position: tuple[int, int] | None,
        applied_index: int,
    ) -> None:
        """`process` is about to answer a read with a staleness bound."""
        assert guarantee.max_staleness_ms is not None
        self.bounded_reads += 1
        now = self._simulation.scheduler.now + process.stall_s
        required = self._complete_at(now - guarantee.max_staleness_ms / 1000)
        who = f"{guarantee.level} read of {guarantee.max_staleness_ms:.0f} ms at {process.node_id}"
        if applied_index < required:
            raise Violation("bounded reads are fresh", f"{who}: {applied_index} applied, {required} is older")
        for since, _ in self.model.history.get(collection_id, ()) if position is not None else ():
            if position < since <= (required, 0):
                raise Violation("bounded reads are fresh", f"{who}: shows {position}, not {since}")

    def on_send(self, process: Process, peer: str, message: Any) -> None:
        """What it promises must be on the disk already."""
        meta, name = process.disk.meta, process.node_id
        term, vote = (0, None) if meta is None else (meta.term, meta.vote)
        if isinstance(message, Accepted):
            if message.match > process.disk.last_index:
                raise Violation(
                    "durable before promised",
                    f"{name} acknowledges {message.match}, its disk ends at {process.disk.last_index}",
                )
        elif isinstance(message, VoteReply):
            if not message.granted:
                return
            if term < message.term or (term == message.term and vote != peer):
                raise Violation(
                    "durable before promised", f"{name} votes in {message.term}, disk says {term}"
                )
            self._on_vote(name, message.term, peer)
        elif isinstance(message, Vote):
            if term < message.term or (term == message.term and vote != name):
                raise Violation(
                    "durable before promised", f"{name} stands in {message.term}, disk says {term}"
                )
            self._on_vote(name, message.term, name)
        elif not isinstance(message, Append | Heartbeat | HeartbeatReply):
            return
        if term < message.term:
            raise Violation(
                "durable before promised", f"{name} speaks of term {message.term}, its disk of {term}"
            )

    def _on_vote(self, voter: str, term: int, candidate: str) -> None:
        if self._votes.setdefault((voter, term), candidate) != candidate:
            raise Violation(
                "one vote a term",
                f"{voter} votes for {self._votes[voter, term]} and {candidate} in term {term}",
            )

    def on_handed_over(self, process: Process, to: str | None, term: int, error: Any) -> None:
        """What the leader of `term` that was to hand over was told; `to` it may not have been able to."""
        name = process.node_id
        if error is None:
            if process.node.is_leader and process.node.term == term:
                raise Violation("a hand-over is told truly", f"{name} still leads term {process.node.term}")
            if to == name or to not in (None, *self._simulation.ids):
                raise Violation("a hand-over is told truly", f"{name} handed leadership over to {to}")
        elif not isinstance(error, NotHandedOver):
            raise Violation("a hand-over is told truly", f"{name}: {error}")

    def expect_leader(self, leader: str) -> None:
        """From here on only another node's links suffer: the leader stays."""
        self._steady = (leader, max(self.leaders))

    def end_steady(self) -> None:
        self._steady = None

    # ------------------------------------------------------------------ applying

    def is_partial(self, step: Step) -> bool:
        """Whether the step ends in the middle of a write that is larger than one engine call."""
        meta = next(change for change in reversed(step.changes) if change.key == "meta")
        return msgpack.unpackb(meta.value or b"")[3] != 0

    def _check_is_poison(self, point: tuple[int, int]) -> None:
        """Nobody is refused for a neighbour's fault."""
        command = self.model.command_at(point)
        if not self._simulation.poison.is_poison(command):
            raise Violation("only poison is refused", f"write {point[1]} of entry {point[0]}")

    def on_difference(self, name: str, what: str) -> None:
        """A node finds that it applied what the cluster refuses."""
        raise Violation("what is refused is applied nowhere", f"{name}: {what}")

    def on_not_understood(self, name: str, what: str) -> None:
        """A node comes to what its build does not understand."""
        raise Violation("only what all understand is proposed", f"{name}: {what}")

    def before_durable(self, process: Process) -> None:
        """A step is about to be made durable: other threads, and nodes that ask, see this moment too."""
        meta = process.disk.pairs.get("meta")
        cursor = Cursor() if meta is None else Cursor.decode(meta)
        place = process.applier.place
        if place != (cursor.index + 1, cursor.position, cursor.part):
            raise Violation("applied is durable", f"{process.node_id} says {place} before it is written")

    def on_applied(self, process: Process, step: Step) -> None:
        name = process.node_id
        level = max((level for at, level in self._raises if at <= step.index), default=1)
        if process.machine.level != level:
            what = f"{name} at {step.index} is at {process.machine.level}, not {level}"
            raise Violation("the level is that of the log", what)
        if step.index > len(self.committed):
            raise Violation("only committed is applied", f"{name} has applied {step.index}")
        for request_id, outcome, index in step.outcomes:
            self._check_outcome(f"{name} decides", request_id, outcome, index)
        if self.is_partial(step):
            return
        position = (step.index, step.position)
        for collection_id in touched(step):
            if collection_id in process.disk.halfway:
                continue  # a process before this one went further: equal again when this one is there too
            if collection_id in process.applier.broken_collections():
                continue  # nobody reads it any more, and a part of what broke it may be there
            wanted = self.model.digest_at(collection_id, position)
            if process.engine.read(collection_id) != wanted:
                raise Violation(
                    "state machine safety",
                    f"{name} at {position}: collection {collection_id} is not what the log says",
                )

    def _check_outcome(self, who: str, request_id: str, outcome: Outcome, index: int) -> None:
        for answer in self.model.answers.get(request_id, ()):
            if (answer.status, answer.index) == (outcome.status, index) and (
                answer.status >= 300 or answer.body == outcome.body
            ):
                return
        raise Violation(
            "each request is decided once",
            f"{who} {request_id} as {outcome.status} {outcome.body} at {index}; the log says "
            f"{self.model.answers.get(request_id)}",
        )

    # ------------------------------------------------------------------ answers

    def on_write_answer(self, request_id: str, collection_id: str, outcome: Outcome, index: int) -> None:
        self.writes += 1
        if index > len(self.committed):
            raise Violation("acknowledged is committed", f"{request_id} at {index}")
        self._check_outcome("a client was told", request_id, outcome, index)
        self._told.append((request_id, outcome, index))
        self.show(collection_id, index)

    def on_commit_answer(self, request_id: str, collection_id: str, index: int) -> None:
        """With `ack=committed` the entry at `index` has the request; it may repeat an earlier one."""
        self.writes += 1
        answers = self.model.answers.get(request_id, ())
        if index > len(self.committed) or not any(answer.index <= index for answer in answers):
            raise Violation("acknowledged is committed", f"{request_id} at {index}")
        self.show(collection_id, index)

    def on_write_refused(self, request_id: str) -> None:
        """Every attempt was answered with "nothing was changed"."""
        if request_id in self.model.answers:
            raise Violation(
                "refused changes nothing", f"{request_id} was refused, but is in the log all the same"
            )

    def show(self, collection_id: str, index: int) -> None:
        self.acked[collection_id] = max(self.acked.get(collection_id, 0), index)

    def on_read_answer(
        self,
        who: str,
        collection_id: str,
        required: int,
        digest: int | None,
        position: tuple[int, int] | None,
        applied_index: int,
        token: int,
    ) -> None:
        """`required`: the read must show every change of the collection up to this index."""
        self.reads += 1
        if applied_index < required:
            raise Violation(
                "reads are fresh", f"{who}: {applied_index} is applied, {required} was shown before"
            )
        if position is None:
            return
        if digest != self.model.digest_at(collection_id, position):
            raise Violation("reads show the log", f"{who}: collection {collection_id} at {position}")
        for since, _ in self.model.history.get(collection_id, ()):
            if position < since <= (required, 0):
                raise Violation("reads are fresh", f"{who}: shows {position}, not the change at {since}")
        shown = self.shown_index(collection_id, position)
        if token < shown:
            raise Violation("tokens cover reads", f"{who}: token {token} for what entry {shown} brought")
        self.show(collection_id, shown)

    def shown_index(self, collection_id: str, position: tuple[int, int]) -> int:
        """The log index of the last change of the collection that a reader of `position` sees."""
        history = self.model.history.get(collection_id, ())
        index, rest = max((since for since, _ in history if since <= position), default=(0, 0))
        return index + 1 if rest else index

    # ------------------------------------------------------------------ at the end

    def check_equal(self, processes: list[Process]) -> None:
        """All nodes have applied everything: they hold the same, and it is what the log says."""
        # Of what cannot be read any more the content counts for nothing.
        broken = processes[0].applier.broken_collections()
        wanted = {name: digest for name, digest in self.model.collections().items() if name not in broken}
        first = processes[0].machine.dump()
        for process in processes:
            held = {name: digest for name, digest in process.engine.digests.items() if name not in broken}
            if held != wanted:
                raise Violation("state machine safety", f"{process.node_id}: the records differ at the end")
            if process.machine.dump() != first:
                raise Violation("state machine safety", f"{process.node_id}: the state differs at the end")
