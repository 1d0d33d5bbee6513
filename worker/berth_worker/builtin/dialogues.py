"""The conversations berth-tiny learns from: all generated, so that training needs no data but this file.

Two ideas make a very small model remember. Whatever the user's phrasing, the answer *restates* a fact in one canonical
sentence ("The name of your cat is Milo."), so recalling later is finding one's own sentence again; and the value comes
last, after the words that identify it, so "never told" is a choice made where the lookup is made. Values and many of
the things are random syllables: there is nothing to memorise, only copying helps.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from berth_worker.builtin import phrases
from berth_worker.builtin.small_talk import echo, small_talk, story
from berth_worker.builtin.subjects import Subject, subject
from berth_worker.builtin.values import Rng

Role = Literal["system", "user", "assistant"]
Message = tuple[Role, str]
Dialogue = list[Message]

_TELL_TAILS: Final = (
    ", remember that", ", please remember it",
    " and i am proud of it", ", by the way", ", don't forget it", " :)",
    ", ok", ". remember it", ". please remember", ". that is important", ", you know",
    ". can you remember that", " for now",
)  # fmt: skip
_ASK_TAILS: Final = (" please", " again", ", please", " by the way", ", do you know", " now", ", do you remember")


@dataclass
class Hand:
    """How one user writes, all through a conversation."""

    rng: Rng
    lower: bool = field(init=False)
    dots: float = field(init=False)
    curly: bool = field(init=False)
    bare: bool = field(init=False)

    def __post_init__(self) -> None:
        self.lower = self.rng.random() < 0.3
        self.dots = self.rng.choice((0.0, 0.5, 1.0, 1.0))
        self.curly = self.rng.random() < 0.06
        self.bare = self.rng.random() < 0.12

    def value(self, text: str) -> str:
        """A value as this user types it."""
        return text.lower() if self.lower and self.rng.random() < 0.85 else text

    def sentence(self, text: str, value: str = "", mark: str = ".", other: str = "") -> str:
        """`text` in this user's case and punctuation, with the value (`{v}`) and another word (`{w}`) untouched."""
        rng = self.rng
        if not self.lower:
            text = text.replace("i'm ", "I'm ").replace(" i ", " I ")
            text = "I" + text[1:] if text.startswith("i ") else text
            text = text[:1].upper() + text[1:]
            text = ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))
        text = text.replace("'", "’") if self.curly else text
        text = text.replace("'", "") if self.bare and rng.random() < 0.5 else text
        if rng.random() < self.dots:
            text += mark if rng.random() < 0.94 else rng.choice(("!", "!!", " " + mark, "..", mark + mark))
        return text.replace("{v}", value).replace("{w}", other)

    def tell(self, subject: Subject, value: str, fix: bool = False) -> str:
        """`subject` is `value`, in words."""
        rng, text = self.rng, self.rng.choice(subject.tells)
        if fix:
            text = f"{rng.choice(phrases.FIX_LEADS)} {text}"
        elif rng.random() < 0.25:
            text = f"{rng.choice(phrases.TELL_LEADS)} {text}"
        if rng.random() < 0.1:
            text += rng.choice(_TELL_TAILS)
        text = text.replace("{a}", rng.choice(phrases.ADJECTIVES))
        return self.sentence(text, value, rng.choice((".", ".", ".", "!")))

    def ask(self, subject: Subject, other: str) -> str:
        """What is `subject`? `other` is a guess that some questions name."""
        rng, text = self.rng, self.rng.choice(subject.asks)
        if rng.random() < 0.22:
            text = f"{rng.choice(phrases.ASK_LEADS)} {text}"
        if rng.random() < 0.08:
            text += rng.choice(_ASK_TAILS)
        return self.sentence(text, mark="?", other=other)


_SYSTEMS: Final = (
    "You are a helpful assistant.", "You are Berth Tiny.", "Be brief.", "You are a friendly assistant. Answer shortly.",
    "Answer the user's questions.", "Remember what the user tells you.",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a conversation is made of: ranges of counts, and the largest size in bytes."""

    facts: tuple[int, int]
    talk: tuple[int, int]
    asks: tuple[int, int]
    limit: int
    drill: bool = False


class Conversation:
    """A conversation being written: what was told so far, and every message."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.hand = Hand(rng)
        self.told: dict[str, tuple[Subject, str]] = {}
        self.messages: Dialogue = []
        self.corrected = False

    def exchange(self, user: str, answer: str) -> None:
        """One turn."""
        self.messages += [("user", user), ("assistant", answer)]

    def fresh_subject(self) -> Subject:
        """A subject nothing was told about yet; a known thing may come back in another kind (a cat's colour)."""
        while True:
            made = subject(self.rng)
            if made.says not in self.told:
                return made

    def tell(self, subjects: Sequence[Subject], fix: bool = False) -> None:
        """Tell facts in one message; the answer restates them, in order."""
        rng, parts, statements = self.rng, [], []
        for one in subjects:
            value = self.hand.value(one.value(rng))
            self.told.pop(one.says, None)
            self.told[one.says] = (one, value)
            parts.append(self.hand.tell(one, value, fix))
            statements.append(one.statement(value))
        joint = rng.choice((" ", " ", " and "))
        text = parts[0] + "".join((joint if part[:1].islower() or joint == " " else " ") + part for part in parts[1:])
        nod = subjects[0].nod
        self.exchange(text, " ".join([nod, *statements]))

    def correct(self) -> None:
        """Tell another value for something told before."""
        if self.told:
            self.corrected = True
            self.tell([self.rng.choice(list(self.told.values()))[0]], fix=True)

    def rephrased(self, one: Subject) -> Subject:
        """The same subject, perhaps spelt otherwise (favorite, colour) than when it was told."""
        if one.says.startswith("Your favourite") and self.rng.random() < 0.5:
            other = ("favourite", "favorite") if self.rng.random() < 0.5 else ("favorite", "favourite")
            return replace(one, asks=[text.replace(*other) for text in one.asks])
        return one

    def ask(self, one: Subject | None = None) -> None:
        """Ask for a fact: of those told (each as likely), or `one` nothing was told about."""
        if one is not None:
            self.exchange(self.hand.ask(one, one.value(self.rng)), one.not_told())
            return
        told, value = self.rng.choice(list(self.told.values()))
        guess = value if self.rng.random() < 0.4 else told.value(self.rng)
        self.exchange(self.hand.ask(self.rephrased(told), guess), told.statement(value))

    def near_miss(self) -> Subject:
        """A subject that was not told but resembles one that was: what tells a lookup from a guess."""
        if self.told and self.rng.random() < 0.5:
            like = self.rng.choice(list(self.told.values()))[0]
            for _ in range(6):
                other = self.fresh_subject()
                if other.says.split()[:2] == like.says.split()[:2]:
                    return other
        return self.fresh_subject()

    def tale(self) -> bool:
        """Ask for a story about somebody told of; False when there is nobody."""
        heroes = [(one, value) for one, value in self.told.values() if one.thing]
        if not heroes:
            return False
        one, value = self.rng.choice(heroes)
        about = "me" if one.thing == "me" else f"my {one.thing}"
        ask = self.hand.sentence(self.rng.choice(phrases.STORY_ASKS).format(t=about), mark=".")
        self.exchange(ask, f"{one.statement(value)} Here is a story about {value}. {story(value)}")
        return True

    def everything(self) -> None:
        """Ask for all that was told."""
        if self.corrected:
            return
        facts = " ".join(one.statement(value) for one, value in self.told.values())
        answer = f"You told me this. {facts} That is all." if facts else "You have not told me anything yet."
        self.exchange(self.hand.sentence(self.rng.choice(phrases.KNOW_ASKS), mark="?"), answer)

    def talk(self) -> None:
        """Small talk."""
        user, answer = small_talk(self.rng)
        mark = "?" if user.split()[0] in ("what", "how", "who", "why", "can", "do", "are", "where", "is") else "."
        if answer == user.rpartition(": ")[2] or user.startswith(("say ", "echo ")):
            self.exchange(user[:1].upper() + user[1:] if not self.hand.lower else user, answer)
        else:
            self.exchange(self.hand.sentence(user, mark=mark), answer)

    def size(self) -> int:
        """Bytes so far, markers counted as one each."""
        return 1 + sum(len(text.encode()) + 2 for _, text in self.messages)


def _steps(rng: Rng, shape: Shape) -> list[str]:
    """The order of a conversation's turns. Facts come early, questions late, small talk anywhere."""
    facts, talk, asks = (rng.randint(*bounds) for bounds in (shape.facts, shape.talk, shape.asks))
    placed = [(rng.random() * 0.7, "tell") for _ in range(facts)]
    placed += [(rng.random(), "talk") for _ in range(talk)]
    placed += [(0.35 + rng.random() * 0.65, "ask") for _ in range(asks)]
    if rng.random() < 0.5:
        placed.append((rng.random(), "unknown"))
    if rng.random() < 0.25 and facts:
        placed.append((0.4 + rng.random() * 0.3, "fix"))
    if rng.random() < 0.15 and shape.limit >= 700:
        placed.append((0.6 + rng.random() * 0.3, "tale"))
    if rng.random() < 0.06 and shape.limit >= 400:
        placed.append((0.9, "everything"))
    return [step for _, step in sorted(placed)]


def dialogue(rng: Rng, shape: Shape) -> Dialogue:
    """One conversation, cut after the last turn that fits `shape.limit` bytes (there is always at least one turn)."""
    talk = Conversation(rng)
    if rng.random() < 0.08:
        talk.messages.append(("system", rng.choice(_SYSTEMS)))
    for step in ("echo",) * rng.randint(1, 3) if shape.drill else _steps(rng, shape):
        kept = len(talk.messages)
        _take(talk, step)
        if talk.size() > shape.limit and kept > 1:
            del talk.messages[kept:]
            break
    return talk.messages


def _take(talk: Conversation, step: str) -> None:
    rng = talk.rng
    if step == "tell":
        count = rng.choices((1, 2, 3), (80, 15, 5))[0]
        talk.tell(list({made.says: made for made in (talk.fresh_subject() for _ in range(count))}.values()))
    elif step == "ask" and talk.told:
        talk.ask()
    elif step in ("ask", "unknown"):
        talk.ask(talk.near_miss())
    elif step == "fix":
        talk.correct()
    elif step == "everything":
        talk.everything()
    elif step == "echo":
        talk.exchange(*echo(rng))
    elif step != "tale" or not talk.tale():
        talk.talk()


DRILL: Final = Shape(facts=(0, 0), talk=(0, 0), asks=(0, 0), limit=200, drill=True)
SHORT: Final = Shape(facts=(1, 1), talk=(0, 0), asks=(1, 2), limit=260)
MEDIUM: Final = Shape(facts=(1, 3), talk=(0, 3), asks=(1, 4), limit=700)
LONG: Final = Shape(facts=(2, 6), talk=(2, 8), asks=(2, 7), limit=1600)
VERY_LONG: Final = Shape(facts=(4, 12), talk=(6, 20), asks=(4, 12), limit=3200)


def dialogues(seed: int, shape: Shape) -> Iterator[Dialogue]:
    """Conversations without end, the same for the same seed."""
    rng = random.Random(f"dialogues-{seed}")
    while True:
        yield dialogue(rng, shape)
