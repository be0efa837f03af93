"""The tasks of the programs next to this file."""

from __future__ import annotations

import dataclasses
import datetime as dt

from stemflow import TaskContext, TaskDefinition, TaskHandler, TaskOptions, TaskRegistry

registry = TaskRegistry()


@registry.task("add")
async def add(x: int, y: int) -> int:
    return x + y


@registry.task("label")
def label(context: TaskContext, number: int, prefix: str = "") -> str:
    return f"{prefix}{number} by {context.id}"


@registry.task("shout")
def shout(text: str) -> str:
    return text.upper()


@registry.task("count")
def count(text: str) -> int:
    return len(text)


@registry.task("total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@registry.task("now", max_retries=2)
async def now() -> int:
    return 1


@dataclasses.dataclass
class Charge:
    amount: int
    due: dt.date | None = None


@dataclasses.dataclass
class Receipt:
    text: str


class ChargeHandler(TaskHandler[Charge, Receipt]):
    name = "charge"
    options = TaskOptions(max_retries=2)

    async def call(self, context: TaskContext, args: Charge) -> Receipt:
        return Receipt(f"{args.amount} by {context.id}")


class PrintHandler(TaskHandler[Receipt, int]):
    name = "print"

    def call(self, context: TaskContext, args: Receipt) -> int:
        return len(args.text)


charge = registry.register(ChargeHandler())
printing = registry.register(PrintHandler())
remote: TaskDefinition[Charge, Receipt] = TaskDefinition("charge", decode_result=Receipt)


@registry.task("read")
async def read(receipt: Receipt) -> str:
    return receipt.text


@registry.task("buy")
async def buy(charge: Charge) -> Receipt:
    return Receipt(str(charge.amount))
