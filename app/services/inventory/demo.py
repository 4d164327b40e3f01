"""Demo items: eleven to order, and one that is always gone."""

from __future__ import annotations

from app.data import Database
from app.services.inventory.logic import Item
from app.services.inventory.repository import StockRepository
from app.settings import Settings

GOODS = (
    Item("coffee-arabica", "Coffee, Arabica beans, 500 g", 5_000),
    Item("coffee-robusta", "Coffee, Robusta beans, 500 g", 5_000),
    Item("honey-acacia", "Acacia honey, 250 g", 1_000),
    Item("kettle-cast-iron", "Cast-iron kettle, 1.2 l", 100),
    Item("mug-stoneware", "Stoneware mug", 2_000),
    Item("tea-assam", "Assam tea, 100 g", 10_000),
    Item("tea-darjeeling", "Darjeeling tea, first flush, 100 g", 10_000),
    Item("tea-earl-grey", "Earl Grey tea, 100 g", 10_000),
    Item("tea-gyokuro", "Gyokuro tea, 100 g", 0),
    Item("tea-rooibos", "Rooibos tea, 100 g", 10_000),
    Item("tea-sencha", "Sencha tea, 100 g", 10_000),
    Item("teapot-glass", "Glass teapot, 1 l", 500),
)


async def seed(database: Database, _: Settings) -> None:
    """Put the demo items into an empty database."""
    await StockRepository(database).fill(GOODS)
