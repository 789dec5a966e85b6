"""SQLAlchemy: core, ORM and reflection, over three drivers."""
import asyncio
import sys

from sqlalchemy import ForeignKey, MetaData, Numeric, Table, create_engine, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    sales: Mapped[list["Sale"]] = relationship(back_populates="person", cascade="all, delete-orphan")


class Sale(Base):
    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    buyer: Mapped[int] = mapped_column(ForeignKey("people.id"))
    total: Mapped[float] = mapped_column(Numeric(12, 2))
    person: Mapped[Person] = relationship(back_populates="sales")


def work(driver, sale):
    engine = create_engine(f"postgresql+{driver}://", pool_size=2, pool_pre_ping=True)
    found = inspect(engine)
    print(found.default_schema_name, found.get_schema_names(), found.get_table_names(), found.get_view_names())
    print(found.get_materialized_view_names(), found.get_sequence_names(), found.get_enums(), found.get_domains())
    for table in found.get_table_names():
        print(table, [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in found.get_columns(table)])
        print(found.get_pk_constraint(table), found.get_foreign_keys(table), found.get_indexes(table))
        print(found.get_unique_constraints(table), found.get_check_constraints(table), found.get_table_comment(table))
    print(found.get_view_definition("buyers"), found.get_table_names(schema="archive"))
    metadata = MetaData()
    metadata.reflect(engine, views=True)
    metadata.reflect(engine, schema="archive")
    print(sorted(metadata.tables))
    people, lines = metadata.tables["people"], metadata.tables["sale_lines"]
    with engine.begin() as c:
        print(c.execute(select(people.c.name, func.length(people.c.name)).order_by(people.c.id)).all())
        print(c.execute(insert(lines).returning(lines.c.position), [dict(sale=sale, position=n, item="core", price=n) for n in range(10, 40)]).all())
        print(c.execute(text("select count(*) from archive.sales where id > :id"), {"id": 1}).scalar_one())
        print(c.execution_options(yield_per=5).execute(select(lines.c.price).where(lines.c.sale == sale).order_by(lines.c.position)).scalars().all())
    with Session(engine) as session:
        new = Person(name="Dora", sales=[Sale(total=1), Sale(total=2)])
        session.add(new)
        session.commit()
        print(new.id > 4, [float(s.total) for s in new.sales])
        print([(p.name, len(p.sales)) for p in session.scalars(select(Person).options(selectinload(Person.sales)).order_by(Person.id))])
        new.name = "Dorothea"
        session.flush()
        session.delete(new)
        session.commit()
        try:
            session.add(Sale(buyer=99, total=1))
            session.commit()
        except IntegrityError as error:
            print(type(error.orig).__name__)
            session.rollback()
        with session.begin_nested():
            print(session.scalar(select(func.count(Sale.id))))
        print(session.execute(select(Sale).where(Sale.id == 1).with_for_update()).scalar_one().id)
    print(Table("sales", MetaData(), autoload_with=engine, schema="archive").c.keys())
    engine.dispose()


async def asynchronous():
    engine = create_async_engine("postgresql+asyncpg://")
    async with engine.begin() as c:
        print(await c.run_sync(lambda s: inspect(s).get_table_names()))
        print((await c.execute(select(func.count()).select_from(text("buyers")))).scalar_one())
        async for row in await c.stream(select(Person.name).order_by(Person.id)):
            print(row)
    await engine.dispose()


def denied():
    engine = create_engine("postgresql+psycopg://")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        try:
            c.execute(text("truncate sale_lines"))
        except ProgrammingError as error:
            print("autocommit", type(error.orig).__name__, error.orig.sqlstate, str(error.orig)[:27])
        print(c.execute(text("select count(*) from people")).scalar())
    with engine.connect() as c:
        try:
            c.execute(text("truncate sale_lines"))
        except DBAPIError as error:
            print("transaction", type(error.orig).__name__, error.orig.sqlstate, error.connection_invalidated)
        try:
            c.execute(text("select 1"))
        except InternalError as error:
            print(type(error.orig).__name__, error.orig.sqlstate)
        c.rollback()
        print(c.execute(text("select count(*) from people")).scalar())


if sys.argv[1] == "work":
    work("psycopg", 7)
    work("psycopg2", 8)
    asyncio.run(asynchronous())
else:
    denied()
