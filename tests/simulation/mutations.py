"""Deliberate bugs, one class or function each, that the simulation must find.

Each is a subclass of a real part with one rule broken (see `tests.simulation.bugs`); `parts_of(name)` puts it
in its place. Nothing in the product knows of them. `python -m tests.simulation.mutation_table` counts the
seeds that each one needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.bugs import (
    applying,
    classics,
    containing,
    filling,
    levels,
    links,
    log,
    members,
    reads,
    staleness,
    standing,
)
from tests.simulation.parts import Parts, node_of


@dataclass(frozen=True)
class Mutation:
    """`hazard` is pysyncobj's, by its number in docs/raft.md; empty for a classic of its own."""

    name: str
    hazard: str
    bug: str
    parts: Parts
    snapshots: bool = False
    """Whether it shows in runs with snapshots only."""
    upgrade: bool = False
    """Whether it shows in runs with an upgrade only."""


_ALL = (
    Mutation(
        "acks-carry-no-term", "1", "an ack of an earlier term is counted", Parts(node=log.AcksCarryNoTerm)
    ),
    Mutation(
        "truncate-always",
        "2",
        "every append cuts what follows it, committed entries too",
        Parts(node=node_of(following=log.TruncateWhatIsCommitted), journal=log.ForgivingJournal),
    ),
    Mutation(
        "truncate-until-fault",
        "2",
        "every append cuts what follows it; the journal still refuses to cut what is committed",
        Parts(node=node_of(following=log.TruncateAlways)),
    ),
    Mutation(
        "answer-with-own-end",
        "2b",
        "a conflict is answered with the follower's own end, and the leader obeys",
        Parts(node=node_of(following=log.AnswerWithOwnEnd, replication=log.ObeyAnyEnd)),
    ),
    Mutation(
        "ack-before-fsync",
        "3",
        "acks and votes leave before the fsync",
        Parts(node=node_of(outbox=log.SendBeforeFsync)),
    ),
    Mutation("no-fsync", "3", "a flush returns without an fsync", Parts(storage=log.ForgetfulStorage)),
    Mutation(
        "unsynced-tail-counts",
        "3",
        "what a killed process did not live to sync in the journal counts as durable after the restart",
        Parts(storage=log.UnsyncedTailCounts),
    ),
    Mutation(
        "unsynced-marker-counts",
        "3",
        "the same with the marker of what is applied",
        Parts(store=log.UnsyncedMarkerCounts),
    ),
    Mutation(
        "wiped-node-votes",
        "",
        "a node whose disk was lost votes and acknowledges as before",
        Parts(node=node_of(standings=standing.WipedNodeVotes)),
    ),
    Mutation("vote-not-stored", "3", "the vote is not written to disk", Parts(journal=log.VoteNotStored)),
    Mutation(
        "term-not-restored", "3", "term and vote are not read at a start", Parts(node=log.TermNotRestored)
    ),
    Mutation(
        "no-check-quorum",
        "6",
        "a leader without a majority goes on",
        Parts(node=node_of(replication=log.NoCheckQuorum)),
    ),
    Mutation(
        "no-pre-vote", "7", "a node stands without asking first", Parts(node=node_of(election=log.NoPreVote))
    ),
    Mutation(
        "no-stickiness",
        "7",
        "followers of a live leader help to depose it",
        Parts(node=node_of(election=log.NoStickiness)),
    ),
    Mutation(
        "compact-what-followers-need",
        "11",
        "compaction looks at the own applied index only",
        Parts(node=log.CompactWhatFollowersNeed),
    ),
    Mutation(
        "compact-what-is-not-applied",
        "11",
        "compaction drops entries that the applier has not applied",
        Parts(node=log.CompactWhatIsNotApplied),
    ),
    Mutation(
        "own-vote-twice",
        "",
        "a candidate counts its own vote twice",
        Parts(node=node_of(election=classics.OwnVoteTwice)),
    ),
    Mutation(
        "two-votes-a-term",
        "",
        "a vote is given again in the same term",
        Parts(node=node_of(election=classics.TwoVotesATerm)),
    ),
    Mutation(
        "vote-for-any-log",
        "",
        "votes go to candidates whose log is behind",
        Parts(node=node_of(election=classics.VoteForAnyLog)),
    ),
    Mutation(
        "compare-logs-by-length",
        "",
        "logs are compared by length, not by last term",
        Parts(node=node_of(election=classics.CompareLogsByLength)),
    ),
    Mutation(
        "commit-old-term-by-count",
        "",
        "an entry of an earlier term is committed by counting copies",
        Parts(node=node_of(replication=classics.CommitOldTermByCount)),
    ),
    Mutation(
        "leader-counts-unsynced",
        "",
        "the leader counts itself before its fsync",
        Parts(node=classics.LeaderCountsUnsynced, journal=classics.LazyJournal),
    ),
    Mutation(
        "follower-commits-unverified",
        "",
        "a follower commits entries that it has not compared with its leader's",
        Parts(node=node_of(following=classics.FollowerCommitsUnverified)),
    ),
    Mutation(
        "ack-unverified-tail",
        "",
        "a follower acknowledges entries beyond the last that it compared",
        Parts(node=node_of(outbox=classics.AckUnverifiedTail)),
    ),
    Mutation(
        "small-quorum", "", "half of the nodes are taken for a majority", Parts(node=classics.SmallQuorum)
    ),
    Mutation(
        "skip-consistency-check",
        "",
        "the term before new entries is not compared",
        Parts(node=node_of(following=classics.SkipConsistencyCheck)),
    ),
    Mutation(
        "keep-conflicting-entries",
        "",
        "an entry at the same index is kept, whatever its term",
        Parts(node=node_of(following=classics.FirstEntryOnly)),
    ),
    Mutation(
        "old-leader-obeyed",
        "",
        "messages of deposed leaders count",
        Parts(node=node_of(following=classics.OldLeaderObeyed)),
    ),
    Mutation(
        "reuse-read-index",
        "6",
        "a read index is given to later reads too",
        Parts(node=node_of(reads=reads.ReuseReadIndex)),
    ),
    Mutation(
        "read-on-old-acks",
        "6",
        "acks from before a read prove its index",
        Parts(node=node_of(reads=reads.ReadOnOldAcks)),
    ),
    Mutation("read-without-quorum", "6", "a leader trusts itself", Parts(node=reads.ReadWithoutQuorum)),
    Mutation(
        "read-before-own-commit",
        "",
        "a new leader serves reads at once",
        Parts(node=node_of(reads=reads.ReadBeforeOwnCommit)),
    ),
    Mutation(
        "read-at-own-commit",
        "",
        "a linearizable read waits for the node's own commit index",
        Parts(wanted_index=reads.read_at_own_commit),
    ),
    Mutation("ignore-token", "", "a session read does not wait", Parts(wanted_index=reads.ignore_token)),
    Mutation(
        "token-is-applied", "", "a read's token is the applied index", Parts(applier=reads.TokenIsApplied)
    ),
    Mutation(
        "token-from-marker",
        "",
        "after a restart amid an entry tokens leave its first part out",
        Parts(applier=reads.TokenFromMarker),
    ),
    Mutation(
        "drop-notes-no-token",
        "",
        "who finds a collection gone gets the token of what was before",
        Parts(applier=reads.DropNotesNoToken),
    ),
    Mutation(
        "apply-out-of-order", "", "an entry's proposals in reverse", Parts(applier=applying.ApplyOutOfOrder)
    ),
    Mutation(
        "apply-uncommitted",
        "",
        "entries are applied before their commit",
        Parts(raft=applying.ApplyUncommitted),
    ),
    Mutation(
        "mark-before-call", "10", "a step is marked before its call", Parts(applier=applying.MarkBeforeCall)
    ),
    Mutation(
        "memory-before-store",
        "10",
        "a step counts, and is told to others, before it is durable",
        Parts(applier=applying.MemoryBeforeStore),
    ),
    Mutation(
        "skip-an-entry",
        "10",
        "applying goes on one entry late after a restart",
        Parts(applier=applying.SkipAnEntry),
    ),
    Mutation(
        "no-intent",
        "",
        "a delete by filter is resolved again after a crash",
        Parts(load_machine=applying.no_intent),
    ),
    Mutation(
        "forget-requests",
        "14",
        "request ids do not survive a restart",
        Parts(load_machine=applying.forget_requests),
    ),
    Mutation(
        "remember-few", "", "a node remembers three request ids", Parts(load_machine=applying.remember_few)
    ),
    Mutation(
        "answer-any-commit",
        "14",
        "a write is answered when its index is committed, whoever's entry it is",
        Parts(raft=applying.AnswerAtCommitOfAnything),
    ),
    Mutation(
        "refuse-alone",
        "",
        "a node refuses by itself a write that its engine fails on",
        Parts(applier=containing.RefuseAlone),
    ),
    Mutation(
        "refusal-uncommitted",
        "",
        "an agreement to refuse counts before it is committed",
        Parts(applier=containing.LookAtUncommitted),
    ),
    Mutation(
        "refuse-what-is-applied",
        "",
        "a majority refuses a write that another node has applied",
        Parts(deliberation=containing.ProposeThoughApplied),
    ),
    Mutation(
        "no-hold",
        "",
        "a refusal is proposed while others may be trying the write again",
        Parts(deliberation=containing.NoHold),
    ),
    Mutation(
        "no-look-ahead",
        "",
        "what is committed is not looked through before any of it is applied",
        Parts(applier=containing.NoLookAhead),
    ),
    Mutation(
        "note-not-durable",
        "",
        "that a write was refused is forgotten at a restart",
        Parts(load_machine=containing.note_not_durable),
    ),
    Mutation(
        "refusals-not-reset",
        "",
        "a good write does not end a collection's row of refusals",
        Parts(load_machine=containing.count_not_reset),
    ),
    Mutation(
        "blame-the-first",
        "",
        "of a merged call that fails the first write is refused",
        Parts(load_machine=containing.blame_the_first),
    ),
    Mutation(
        "fresh-from-arrival",
        "",
        "how old a leader's word is counts from its arrival",
        Parts(node=node_of(following=staleness.FreshFromArrival)),
    ),
    Mutation(
        "best-follower-proves",
        "",
        "one follower's answer proves that a leader still led",
        Parts(node=node_of(reads=staleness.BestFollowerProves)),
    ),
    Mutation(
        "proof-age-left-out",
        "",
        "a leader's word leaves out how long ago it surely led",
        Parts(node=node_of(reads=staleness.ProofAgeLeftOut)),
    ),
    Mutation(
        "known-before-own-commit",
        "",
        "a new leader takes its commit index for complete",
        Parts(node=node_of(reads=staleness.KnownBeforeOwnCommit)),
    ),
    Mutation(
        "not-judged-again",
        "",
        "a read with a bound is not judged again when it is done",
        Parts(check_after=staleness.not_judged_again),
    ),
    Mutation(
        "old-link-stays",
        "",
        "a peer dials anew, and its old connection is not closed",
        Parts(transport=links.OldLinkStays),
    ),
    Mutation(
        "old-link-taken",
        "",
        "a connection that hung in the network takes the place of a newer one",
        Parts(transport=links.OldLinkTaken),
    ),
    Mutation(
        "loss-is-not-told",
        "",
        "the log is not told that a link broke",
        Parts(transport=links.LossIsNotTold),
    ),
    Mutation(
        "silence-is-no-loss",
        "",
        "a link on which nothing comes any more is kept",
        Parts(transport=links.SilenceIsNoLoss),
    ),
    Mutation("no-pings", "", "who has nothing to say is taken for silent", Parts(transport=links.NoPings)),
    Mutation(
        "other-dials-stay",
        "",
        "attempts that are under way when one succeeds go on",
        Parts(transport=links.OtherDialsStay),
    ),
    Mutation("no-redial", "", "a link that broke is not dialled again", Parts(transport=links.NoRedial)),
    Mutation(
        "change-at-commit",
        "",
        "a change of members is in force once it is committed, not when it is appended",
        Parts(journal=members.ChangeAtCommit),
    ),
    Mutation(
        "two-changes-at-once",
        "",
        "a leader changes the members while a former change is under way",
        Parts(node=members.TwoChangesAtOnce),
    ),
    Mutation(
        "change-before-own-commit",
        "",
        "a leader changes the members before it has committed anything, by the new majority alone",
        Parts(node=members.ChangeBeforeOwnCommit),
    ),
    Mutation(
        "promote-anybody",
        "",
        "a learner that lacks entries becomes a voter",
        Parts(node=members.PromoteAnybody),
    ),
    Mutation("learners-count", "", "a learner is counted in a majority", Parts(node=members.LearnersCount)),
    Mutation(
        "removed-node-disturbs",
        "",
        "a removed node stands for election and is listened to",
        Parts(node=members.Disturbing),
    ),
    Mutation(
        "needed-by-three",
        "",
        "one of three voters lets a wiped node vote for it",
        Parts(node=node_of(standings=members.NeededByThree)),
    ),
    Mutation(
        "truncation-keeps-configuration",
        "",
        "a change that is cut off the log stays in force",
        Parts(journal=members.TruncationKeepsConfiguration),
    ),
    Mutation(
        "compaction-forgets-configuration",
        "",
        "a change that is compacted away is forgotten",
        Parts(journal=members.CompactionForgetsConfiguration),
    ),
    Mutation(
        "install-not-atomic",
        "",
        "an install that was killed is not gone on with",
        Parts(installer=filling.InstallNotAtomic),
        snapshots=True,
    ),
    Mutation(
        "install-without-log",
        "",
        "the files of a snapshot take their places, the log stays as it was",
        Parts(installer=filling.StateBeforeLog),
        snapshots=True,
    ),
    Mutation(
        "snapshot-forgets-requests",
        "",
        "a snapshot has no remembered requests",
        Parts(taker=filling.forgets_requests),
        snapshots=True,
    ),
    Mutation(
        "snapshot-lacks-a-collection",
        "",
        "the first collection is not in a snapshot",
        Parts(taker=filling.lacks_a_collection),
        snapshots=True,
    ),
    Mutation(
        "snapshot-forgets-configuration",
        "",
        "a snapshot does not say who the members are",
        Parts(taker=filling.forgets_configuration),
        snapshots=True,
    ),
    Mutation(
        "reset-forgets-term",
        "",
        "a log that goes on from a snapshot forgets term and vote",
        Parts(journal=filling.TermForgotten),
        snapshots=True,
    ),
    Mutation(
        "compact-beyond-applied",
        "",
        "the bound of the log counts for more than what is applied",
        Parts(node=node_of(retention=filling.CompactBeyondApplied)),
        snapshots=True,
    ),
    Mutation(
        "away-agrees",
        "",
        "the command level is raised without waiting for a member that is away",
        Parts(next_level=levels.away_agrees),
        upgrade=True,
    ),
    Mutation(
        "leader-decides",
        "",
        "the command level is raised to what one node understands",
        Parts(next_level=levels.leader_decides),
        upgrade=True,
    ),
    Mutation(
        "new-kind-too-early",
        "",
        "a leader proposes a new kind of command that older members do not understand",
        Parts(level_of=levels.any_kind_at_once),
        upgrade=True,
    ),
    Mutation(
        "level-forgotten",
        "",
        "the level in force does not survive a restart",
        Parts(load_machine=levels.forgets_level),
        upgrade=True,
    ),
    Mutation(
        "snapshot-forgets-level",
        "",
        "the level in force is not in a snapshot",
        Parts(taker=levels.left_out_of_snapshots),
        snapshots=True,
        upgrade=True,
    ),
)
MUTATIONS = {mutation.name: mutation for mutation in _ALL}


def parts_of(name: str | None) -> Parts:
    """The parts of a node with this bug; the real ones for None."""
    return Parts() if name is None else MUTATIONS[name].parts
