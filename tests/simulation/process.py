"""One node's process: the real log, machine, applier and way in, put together as `cluster.server` does."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.apply.agreement import encode_agreement
from cluster.errors import ClusterError, Fault, NotLeader, OutcomeUnknown, Overloaded, Unavailable
from cluster.reads import Guarantee, behind, check_age, check_freshness, needs_read_index
from cluster.staleness import Knowledge, age_ms, seen_as_of
from cluster.state.commands import Proposal, encode_proposal
from cluster.state.refusals import set_aside
from tests.simulation.builds import LevelKeeper
from tests.simulation.disk import Crash
from tests.simulation.engine import FakeEngine
from tests.simulation.filling import Filler
from tests.simulation.network import Wire
from tests.simulation.stepped import CLUSTER_ID, SteppedLoop, touched

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from pysyncobj.node import Node

    from cluster.apply.containment import Progress, Question
    from cluster.apply.deliberation import Deliberation
    from cluster.propose.proposer import Proposer
    from cluster.state.catalog import Change
    from cluster.state.commands import Command
    from cluster.state.machine import Step
    from tests.simulation.cluster import Simulation


#: `Simulation.ask` tells by then that there is no answer.
_ANSWER_S = 30.0


class Process:
    """From start to crash. All work comes through `enqueue`, so a process that is busy or paused waits."""

    def __init__(self, simulation: Simulation, node_id: str, rng: random.Random) -> None:
        self.simulation = simulation
        self.scheduler = simulation.scheduler
        self.node_id = node_id
        self.disk = simulation.disks[node_id]
        self.clock = simulation.clocks[node_id]
        self.rng = rng
        self.started_s = self.scheduler.now
        self.resumed_s = self.scheduler.now
        self.is_running = True
        self.is_draining = False
        self.has_broken = False
        self._free_at = 0.0
        self._paused_until = 0.0
        self._backlog: deque[Callable[[], None]] = deque()
        self._is_inside = False
        self._timer_at = float("inf")
        self._applying: tuple[Step, Sequence[Change]] | None = None
        self._apply_planned = False
        self._round_until = 0.0
        self.contents: dict[str, tuple[int, int] | None] = {}
        """By collection: how much of the log its content stands for; None while that is not known."""
        self._marker = (self.disk.marker.index, self.disk.marker.position)
        self._note_marked(self._marker)
        self.commit_seen = 0
        self.known_seen = float("-inf")
        self.led_term = 0
        self.pending: dict[int, Callable[[], None]] = {}
        """Requests being served: what tells the client that the connection broke."""
        self._requests = 0
        parts = simulation.parts
        self.disk.has_failed = False
        self.disk.crash_point = None
        self.disk.stall = self._stall
        self.disk.on_state_write = lambda: simulation.judge.before_durable(self)
        self.clock.stall_s = 0.0
        journal = parts.journal(
            parts.storage(self.disk),
            CLUSTER_ID,
            node_id,
            members=simulation.founders if node_id in simulation.founders else (),
            incarnation=f"{node_id} of {self.started_s}",
            cache_bytes=simulation.plan.cache_bytes,
        )
        self.journal = journal
        self.wire: Wire | None = Wire(simulation.network, self)
        store = parts.store(self.disk)
        self.machine = parts.load_machine(store.items(), simulation.plan.limits)
        poison = simulation.poison
        self.engine = FakeEngine(
            self.disk,
            lambda command: poison.effect(node_id, command, self.scheduler.now),
            poison.broken,
        )
        self.level = LevelKeeper(self)
        self.raft = parts.raft(
            node_id,
            simulation.ids,
            simulation.plan.settings,
            clock=self.clock,
            rng=rng,
            on_fault=lambda reason: self._on_fault(Fault(reason)),
            levels=self.level.levels,
        )
        self.applier = parts.applier(  # type: ignore[assignment]
            self.raft,
            self.machine,
            self.engine,
            store,
            self._on_fault,
            clock=self.clock,  # type: ignore[arg-type]
            ahead=self.disk.ahead,
            newest_level=self.level.newest,
        )
        self.applier.batch_bytes = simulation.plan.batch_bytes
        self.node = self.raft.begin(parts.node, journal, self.wire)
        self.applier.on_call = self._on_call
        self.applier.start()
        self.loop = SteppedLoop(self.enqueue)
        self.proposer: Proposer = parts.proposer(
            self.raft,
            simulation.plan.group_limits,
            self.wall_ms,
            self.loop,  # type: ignore[arg-type]
        )
        self.deliberation: Deliberation = parts.deliberation(
            self.raft,
            self.applier.impasse,
            [other for other in simulation.ids if other != node_id],
            lambda agreement: self.raft.propose(
                encode_agreement(self.wall_ms(), agreement), past_limits=True
            ),
            self.applier.give_up_waiting,
            self.clock,
            simulation.plan.poison.wait_ms if simulation.plan.poison else float("inf"),
        )
        if simulation.plan.poison is not None:
            self._deliberate()
        if simulation.plan.upgrade:
            self.level.start()
        self.filler = Filler(self)
        if simulation.plan.snapshots:
            self.filler.start()
        simulation.judge.on_start(self)
        simulation.network.join(self)
        self.enqueue(_nothing)

    # ------------------------------------------------------------------ time

    def wall_ms(self) -> int:
        """This machine's wall clock, as wrong as its monotonic one."""
        return int(self.clock() * 1000)

    @property
    def stall_s(self) -> float:
        return self.clock.stall_s

    @property
    def is_paused(self) -> bool:
        return self.scheduler.now < self._paused_until

    def _stall(self, seconds: float) -> None:
        self.clock.stall_s += seconds

    def pause(self, seconds: float) -> None:
        """As SIGSTOP does; messages wait in the kernel."""
        self._paused_until = max(self._paused_until, self.scheduler.now + seconds)
        self.resumed_s = self._paused_until
        self.simulation.network.paused(self)
        self._drain_at(self._paused_until)

    def resume(self) -> None:
        self._paused_until = 0.0
        self._drain_at(self.scheduler.now)

    def enqueue(self, action: Callable[[], None]) -> None:
        if not self.is_running:
            return
        self._backlog.append(action)
        if not self._is_inside and self.scheduler.now >= max(self._free_at, self._paused_until):
            self._work()

    def _drain_at(self, when_s: float) -> None:
        def drain() -> None:
            ready = self.scheduler.now >= max(self._free_at, self._paused_until)
            if self.is_running and not self._is_inside and ready:
                self._work()

        self.scheduler.at(when_s, drain)

    def _work(self) -> None:
        """Do all that is waiting, then one turn of the raft loop; time that the disk took comes after."""
        self._is_inside = True
        try:
            while self._backlog:
                self._backlog.popleft()()
                if not self.is_running:
                    return
            if not self.raft.turn():
                self.simulation.stopped(self)
                return
            self.simulation.judge.after_step(self)
            self._plan_timer()
            self._plan_apply()
            if self.raft.has_more:
                self.scheduler.after(0.0005, lambda: self.enqueue(_nothing))
        except Crash as crash:
            self._die(crash)
        finally:
            self._is_inside = False
            if self.clock.stall_s:
                self._free_at = self.scheduler.now + self.clock.stall_s
                self.clock.stall_s = 0.0
                self._drain_at(self._free_at)
        if self._backlog and self.is_running and self.scheduler.now >= self._free_at:
            self._drain_at(self.scheduler.now)

    def _die(self, crash: Crash) -> None:
        power, chosen = self.rng.random() < 0.5, self.disk.crash_takes_power
        self.simulation.crash(self.node_id, power=power if chosen is None else chosen, why=str(crash))

    def _plan_timer(self) -> None:
        due = self.clock.true_time(self.node.next_deadline_s()) + 1e-6
        if due >= self._timer_at - 1e-7 and self._timer_at > self.scheduler.now:
            return  # an earlier timer will look again
        self._timer_at = due
        self.scheduler.at(due, lambda: self._on_timer(due))

    def _on_timer(self, due: float) -> None:
        if self._timer_at == due and self.is_running:
            self._timer_at = float("inf")
            if self.node.next_deadline_s() <= self.clock():
                self.enqueue(_nothing)
            else:
                self._plan_timer()

    # ------------------------------------------------------------------ the network's view

    def node_for(self, peer: str) -> Node:
        return self.node.node_for(peer)

    def on_send(self, peer: str, message: Any) -> None:
        self.disk.crash_at("send")
        self.simulation.judge.on_send(self, peer, message)

    # ------------------------------------------------------------------ the applier's thread

    def _plan_apply(self) -> None:
        if self._apply_planned or not self.is_running or not self.applier.is_behind:
            return
        self._apply_planned = True
        delay_s = self.simulation.plan.engine_delay_s(self.rng)
        if self.applier.impasse.at is not None:
            delay_s += 0.05
        self.scheduler.after(delay_s, self._apply)

    def _apply(self) -> None:
        if not self.is_running:
            return
        if self.is_paused:
            self.scheduler.at(self._paused_until, self._apply)
            return
        try:
            if self._applying is None:
                self._applying = self.applier.begin()
                if self._applying is not None:
                    self._note_content(self._applying[0])
                    self.scheduler.after(self.simulation.plan.engine_delay_s(self.rng), self._apply)
                    return
            else:
                (step, local), self._applying = self._applying, None
                self.applier.complete(step, local)
                if self.applier.fault is None:
                    self._note_marked((step.index, step.position))
                    self.simulation.judge.on_applied(self, step)
        except Crash as crash:
            self._die(crash)
            return
        finally:
            if not self._is_inside:
                self.clock.stall_s = 0.0
        self._apply_planned = False
        self._plan_apply()

    # ------------------------------------------------------------------ containment: as cluster.service does

    def _deliberate(self) -> None:
        if self.is_running:
            self.enqueue(self._round)
            self.scheduler.after(0.1, self._deliberate)

    def _round(self) -> None:
        if self._round_until > self.scheduler.now:
            return
        question = self.deliberation.question()
        if question is None:
            return
        self._round_until = self.scheduler.now + _ANSWER_S
        others = [other for other in self.simulation.ids if other != self.node_id]
        answers: dict[str, Progress | None] = {}

        def conclude() -> None:
            if self.is_running and self._round_until:
                self._round_until = 0.0
                self.deliberation.conclude(question, answers)

        def heard(peer: str, answer: Progress | None) -> None:
            answers[peer] = answer
            if len(answers) == len(others):
                conclude()

        for peer in others:
            self.simulation.ask(
                self,
                peer,
                lambda node, answer: answer(node.progress(question), None),
                lambda progress, error, peer=peer: heard(peer, None if error else progress),
            )

    def progress(self, question: Question) -> Progress:
        """`Containing.progress`."""
        answer = self.applier.impasse.answer(question, self.applier.place)
        is_idle = self.raft.status().lacks is not None or self.applier.fault is not None
        return replace(answer, is_idle=is_idle)

    @property
    def is_at_rest(self) -> bool:
        """Whether no engine call is under way, and a snapshot may be taken."""
        return self._applying is None and self.applier.may_be_copied

    def _content_position(self, collection_id: str) -> tuple[int, int] | None:
        ahead = self.disk.halfway.get(collection_id)
        if ahead is not None and collection_id not in self.contents:
            return None
        return self.contents.get(collection_id, self._marker)

    def _on_call(self, step: Step) -> None:
        """The engine is about to be called: from now on its content may be ahead of the marker."""
        end = (step.index, step.position + self.simulation.judge.is_partial(step))
        for name in touched(step):
            self.disk.halfway[name] = max(end, self.disk.halfway.get(name, end))

    def _note_content(self, step: Step) -> None:
        """The call is done: what it touched stands at its end, unless an earlier process went further."""
        end = (step.index, step.position)
        partial = self.simulation.judge.is_partial(step)
        for name in touched(step):
            self.contents[name] = None if partial or self.disk.halfway[name] > end else end

    def _note_marked(self, end: tuple[int, int]) -> None:
        for name, ahead in list(self.disk.halfway.items()):
            if ahead <= end:
                del self.disk.halfway[name]

    def _on_fault(self, fault: Fault) -> None:
        if "had applied it" in fault.message:
            self.simulation.judge.on_difference(self.node_id, fault.message)
        if "command level" in fault.message:
            self.simulation.judge.on_not_understood(self.node_id, fault.message)
        if not self.has_broken:
            self.has_broken = True
            self.simulation.trace.add(self.scheduler.now, self.node_id, "fault", fault.message)
            self.raft.fail(fault.message)
            self.simulation.broke(self)

    # ------------------------------------------------------------------ requests: as cluster.service serves

    def end_requests(self) -> None:
        """The process is gone: every client under way sees its connection break."""
        self.loop.is_over = True
        pending, self.pending = self.pending, {}
        for tell in pending.values():
            tell()

    def take_request(self, serve: Callable[[Process, Any], None], reply: Any) -> None:
        """A request has arrived: serve it in turn; if the process dies first, its client is told so."""
        self._requests += 1
        number = self._requests

        def answer(value: Any, error: ClusterError | None) -> None:
            if self.pending.pop(number, None) is not None:
                self.scheduler.after(self.clock.stall_s, lambda: reply(value, error))

        self.pending[number] = lambda: reply(None, OutcomeUnknown("the connection broke"))
        self.enqueue(lambda: serve(self, answer))

    def drain(self) -> None:
        """SIGTERM: no new requests, hand leadership over, end."""
        self.is_draining = True
        self.raft.ask_to_stop()
        self._drain_on()

    def _drain_on(self) -> None:
        if self.is_running:
            self.enqueue(_nothing)
            self.scheduler.after(0.02, self._drain_on)

    def write(self, command: Command, key: str, digest: bytes, answer: Any, *, at_commit: bool) -> None:
        """`Writes.write` with `ack=applied`, or `ack=committed`: then the outcome is None."""
        try:
            self._require_serving()
            if self.raft.status().role != "leader":
                raise NotLeader(self.raft.status().leader)
            request_id = f"k:{key}"
            decided = self.applier.expect(request_id)
            try:
                ticket = self.proposer.join(encode_proposal(Proposal(request_id, digest, command)))
            except ClusterError:
                self.applier.forget(request_id, decided)
                raise
        except ClusterError as error:
            answer(None, error)
            return

        def give_up() -> None:
            if not ticket.finished:
                self.applier.forget(request_id, decided)
                self.proposer.finish(ticket)

        def on_position(position: Any) -> None:
            if position.cancelled():
                return
            if position.exception() is not None:
                give_up()
                answer(None, position.exception())
            elif at_commit:
                answer((None, position.result().index), None)

        def on_decided(future: Any) -> None:
            if future.cancelled():
                return

            def tell() -> None:
                give_up()
                if future.exception() is not None:
                    answer(None, future.exception())
                else:
                    answer(future.result(), None)

            self.enqueue(tell)

        def on_timeout() -> None:
            if not ticket.finished:
                give_up()
                if ticket.withdrawn:
                    answer(None, Overloaded("withdrawn"))
                else:
                    answer(None, OutcomeUnknown("no answer in time"))

        ticket.position.add_done_callback(on_position)
        decided.add_done_callback(on_decided)
        self.scheduler.after(self.simulation.plan.write_timeout_s, lambda: self.enqueue(on_timeout))

    def read(self, guarantee: Guarantee, collection_id: str, answer: Any) -> None:
        """`Reads.read`: answers ((digest, content position or None), token, applied index)."""
        arrived_s = self.clock()
        try:
            self._require_serving()
            status = self.raft.status()
            check_freshness(
                guarantee,
                status.quorum_contact_ms,
                self.node_id,
                self.simulation.plan.settings.election_timeout_ms[1],
            )
        except ClusterError as error:
            answer(None, error)
            return

        def wait(read_index: int | None) -> None:
            known = status.known if read_index is None else Knowledge(read_index, arrived_s)
            try:
                check_age(guarantee, self._age_ms(known), self.node_id)
            except Unavailable as error:
                answer(None, error)
                return
            wanted = self.simulation.parts.wanted_index(guarantee, read_index, status.known.index)
            self._wait_applied(wanted, lambda: serve(known), lambda error: answer(None, error))

        deadline_s = self.scheduler.now + self.simulation.plan.read_timeout_s

        def serve(known: Knowledge) -> None:
            trouble = self.applier.trouble(collection_id)
            if trouble is not None and trouble.is_broken:  # as `cluster.service.reads` does
                answer(None, set_aside(collection_id, trouble))
                return
            if self.applier.hidden == collection_id:  # as `cluster.chroma.gate` does
                if self.scheduler.now < deadline_s:
                    self.scheduler.after(0.02, lambda: self.enqueue(lambda: serve(known)))
                else:
                    answer(None, Unavailable("a write to this collection is being applied"))
                return
            result = self.engine.read(collection_id), self._content_position(collection_id)
            token = self.applier.started_index(collection_id)
            read = (result, token, self.applier.applied_index)
            if guarantee.max_staleness_ms is None:
                answer(read, None)
                return
            # The engine takes its time, and the process may stand still meanwhile.
            delay_s = self.simulation.watcher.engine_delay_s()
            self.scheduler.after(delay_s, lambda: self.enqueue(lambda: judge(known, read)))

        def judge(known: Knowledge, read: tuple[Any, int, int]) -> None:
            shown = seen_as_of(known, self.raft.status().known, read[2])
            try:
                self.simulation.parts.check_after(guarantee, self._age_ms(shown), self.node_id)
            except Unavailable as error:
                answer(None, error)
                return
            self.simulation.judge.on_bounded_read(self, guarantee, collection_id, read[0][1], read[2])
            answer(read, None)

        if not needs_read_index(guarantee):
            wait(None)
        elif status.role == "leader":
            self.read_index(lambda index, error: answer(None, error) if error else wait(index))
        elif status.leader is None:
            answer(None, Unavailable("No leader is known"))
        else:
            self.simulation.ask_leader(
                self,
                status.leader,
                lambda index, error: answer(None, error) if error else self.enqueue(lambda: wait(index)),
            )

    def _age_ms(self, known: Knowledge) -> float:
        return age_ms(known, self.clock(), self.simulation.plan.settings.max_drift)

    def read_index(self, reply: Any) -> None:
        """`POST /cluster/read-index`."""
        future = self.raft.read_index()

        def on_done(done: Any) -> None:
            error = done.exception()
            self.enqueue(lambda: reply(None if error else done.result(), error))

        future.add_done_callback(on_done)

    def _wait_applied(self, index: int, reached: Callable[[], None], late: Callable[[Any], None]) -> None:
        if self.applier.applied_index >= index:
            reached()
            return
        is_done = False

        def finish(call: Callable[[], None]) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self.applier.remove_listener(listener)
                call()

        def listener(applied: int) -> None:
            if applied >= index:
                self.enqueue(lambda: finish(reached))

        self.applier.add_listener(listener)
        timeout_s = self.simulation.plan.read_timeout_s
        error = behind(index, self.applier.applied_index, self.node_id)
        self.scheduler.after(timeout_s, lambda: self.enqueue(lambda: finish(lambda: late(error))))

    def _require_serving(self) -> None:
        if self.has_broken:
            raise Fault("This node has stopped serving")
        if self.is_draining:
            raise Unavailable("This node is stopping")


def _nothing() -> None:
    return None
