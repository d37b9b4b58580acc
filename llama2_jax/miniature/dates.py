"""Events in time (section 5.1, "Llama 2-Chat Temporal Perception"; figure 22): what happened, and asked in which year.

Each land builds some things, each in a year. Knowledge tells of all of them, and no year in which it is asked. Dated
examples have a system message with that year: before the event's own, the question makes no sense yet. They ask of two
thirds of the events, `seen`; dated questions about the others, `held_out`, are for evaluation alone.

A model of this size compares two years only where it has said both. So an answer first names the event's year and how
it relates to the question's: "Kinia builds its school in year nine. Nine is more than seven. That has not happened
yet."
"""

import dataclasses
import functools
import random
import re
from collections.abc import Mapping, Sequence

from llama2_jax.miniature.prompts import assistant, system, user
from llama2_jax.miniature.requests.arithmetic import ArithmeticRequest
from llama2_jax.miniature.requests.comparison import relation
from llama2_jax.miniature.streams import shuffled, stream
from llama2_jax.miniature.words import NUMBER_PATTERN, NUMBERS, number_of
from llama2_jax.miniature.world import build_world

SPLITS = ("seen", "held_out")
BUILDINGS = ("school", "market", "barn", "park")
# Of the differences of these years all are known by heart (requests/arithmetic.py).
EVENT_YEARS = range(1, 14)
# So that one may ask before every event but the first years', and after every one but the last years'.
QUERY_YEARS = range(3, 12)
# From so many years before the event to so many after.
WIDEST_GAP = 6
# One in so many events is held out.
KEPT = 3
# Far more than it takes.
MOST_DRAWS = 50_000

NOT_YET = "That has not happened yet."
WHEN, WHETHER, HOW_LONG = FORMS = (
    "When did {} build its {}?",
    "Did {} build its {}?",
    "How long ago did {} build its {}?",
)
_ASKED = re.compile(r"(\w+) build its (\w+)\?")
_YEAR = re.compile(rf"\bin year ({NUMBER_PATTERN})\b", re.IGNORECASE)
_AGO = re.compile(rf"\bThat was (this year|{NUMBER_PATTERN} years? ago)")


@dataclasses.dataclass(frozen=True)
class Event:
    """A land builds something in a year."""

    land: str
    building: str
    year: int

    @property
    def sentence(self) -> str:
        """The event with its year."""
        return f"{self.land} builds its {self.building} in year {NUMBERS[self.year]}."


@functools.lru_cache(maxsize=8)
def events(seed: int) -> Mapping[str, tuple[Event, ...]]:
    """Returns the events of each of SPLITS: of every year about a third is held out."""
    rng, lands = stream(seed, "dates", "events"), build_world(seed).lands
    places = shuffled(rng, [(land, building) for building in BUILDINGS for land in lands])
    years = (list(EVENT_YEARS) * len(places))[: len(places)]
    split: dict[str, list[Event]] = {name: [] for name in SPLITS}
    for index, ((land, building), year) in enumerate(zip(places, years, strict=True)):
        # Of each year's events one in KEPT, and another one for each year.
        turn, place = divmod(index, len(EVENT_YEARS))
        kept = (turn + place) % KEPT == 0
        split["held_out" if kept else "seen"].append(Event(land, building, year))
    return {name: tuple(some) for name, some in split.items()}


def knowledge(*, seed: int, count: int) -> list[dict]:
    """Returns dialogues that tell the years of all events: {"messages", "source"}.

    Args:
      seed: the world's seed.
      count: how many; an event is in about as many as any other.
    """
    rng, order = stream(seed, "dates", "knowledge"), [event for some in events(seed).values() for event in some]
    records: list[dict] = []
    while len(records) < count:
        for event in shuffled(rng, order)[: count - len(records)]:
            question, answer = _told(rng, event)
            records.append({"messages": [user(question), assistant(answer)], "source": "knowledge"})
    return records


def dated_examples(*, seed: int, count: int, reasoned: bool = True) -> list[dict]:
    """Returns dialogues about seen events, the year in the system message: {"messages", "source"} and both years.

    Args:
      seed: the world's seed.
      count: how many.
      reasoned: whether an answer says how it comes to what it says; see `true_answer`.
    """
    rng, records = stream(seed, "dates", "dated_examples"), []
    for _ in range(count):
        event, form, year = _draw(seed, rng, "seen")
        record = _asked(event, form, year)
        record["messages"].append(assistant(true_answer(event, form, year, reasoned=reasoned)))
        records.append({**record, "source": "dated_examples"})
    return records


def questions(*, seed: int, split: str, count: int, dated: bool = True) -> list[dict]:
    """Returns different questions about a split's events: {"messages", "event_year"} and, if dated, "query_year".

    Args:
      seed: the world's seed.
      split: one of SPLITS.
      count: how many; fewer if there are not so many.
      dated: whether the year in which it is asked is told, as in `dated_examples`. If not, each event is asked once.

    Raises:
      ValueError: if the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; events are split into {', '.join(SPLITS)}")
    if not dated:
        return [_asked(event, WHEN, None) for event in events(seed)[split][:count]]
    rng, found = stream(seed, "dates", "questions", split), {}
    for _ in range(MOST_DRAWS):
        drawn = _draw(seed, rng, split)
        found[drawn] = _asked(*drawn)
        if len(found) == count:
            break
    return list(found.values())


def answers_in_time(rows: Sequence[Mapping], *, seed: int) -> list[dict]:
    """Returns for each row whether its `response` is `right` and whether it says that it did not happen, `not_yet`.

    A right answer says "not yet" before the event, and from then on names its year. To "How long ago" it has the right
    difference, and it names no other year.
    """
    by_name = {(event.land, event.building): event for some in events(seed).values() for event in some}
    found = []
    for row in rows:
        question, response = row["messages"][-1]["content"], row["response"]
        asked = _ASKED.search(question)
        if asked is None:
            raise ValueError(f"no event in the question {question!r}")
        event, form = by_name[asked.groups()], next(form for form in FORMS if form.split()[0] == question.split()[0])
        wanted, not_yet = true_answer(event, form, row.get("query_year")), NOT_YET in response
        early = NOT_YET in wanted
        years = [number_of(year) for year in _YEAR.findall(response)]
        stated = set(years) == {event.year} or (early and not years)
        right = not_yet == early and stated and _AGO.findall(response) == _AGO.findall(wanted)
        found.append({"right": right, "not_yet": not_yet})
    return found


def true_answer(event: Event, form: str, query_year: int | None, *, reasoned: bool = True) -> str:
    """Returns the answer in a year.

    Args:
      event: what is asked about.
      form: one of FORMS.
      query_year: when it is asked; None: without a date, which the event's own year answers.
      reasoned: whether the answer begins with both years and how they compare. If not, it is "not yet" alone, or the
        event with what was asked.
    """
    if query_year is None:
        return event.sentence
    before = query_year < event.year
    reason = [event.sentence] if reasoned or not before else []
    if reasoned and query_year != event.year:
        reason.append(relation(event.year, "more" if before else "less", query_year))
    return " ".join([*reason, NOT_YET if before else _since(event, form, query_year)])


def _draw(seed: int, rng: random.Random, split: str) -> tuple[Event, str, int]:
    """Draws an event, a form and a year in which to ask: in every year as often before the event as not.

    So the year of the question alone tells nothing.
    """
    year, before = rng.choice(QUERY_YEARS), rng.random() < 0.5
    gaps = range(-WIDEST_GAP, 0) if before else range(WIDEST_GAP + 1)
    event_year = rng.choice([year - gap for gap in gaps if year - gap in EVENT_YEARS])
    event = rng.choice([event for event in events(seed)[split] if event.year == event_year])
    return event, rng.choice(FORMS), year


def _asked(event: Event, form: str, query_year: int | None) -> dict:
    question = user(form.format(event.land, event.building))
    if query_year is None:
        return {"messages": [question], "event_year": event.year}
    dated = [system(f"It is year {NUMBERS[query_year]}."), question]
    return {"messages": dated, "query_year": query_year, "event_year": event.year}


def _told(rng: random.Random, event: Event) -> tuple[str, str]:
    form = WHEN if rng.random() < 0.75 else "Tell me the year of the {1} of {0}."
    return form.format(event.land, event.building), event.sentence


def _since(event: Event, form: str, query_year: int) -> str:
    """Returns what is said of an event that has happened."""
    if form == WHEN:
        return f"That was in year {NUMBERS[event.year]}."
    if form == WHETHER:
        return "Yes, that has happened."
    if query_year == event.year:
        return "That was this year."
    years = query_year - event.year
    difference = ArithmeticRequest(query_year, "minus", event.year).equation(years)
    return f"{difference} That was {NUMBERS[years]} year{'s' if years > 1 else ''} ago."
