"""Django: migrations, ORM, and what its admin asks, over psycopg 3."""
import os
import sys

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
        "django.contrib.messages", "django.contrib.sessions",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
            "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"],
            "OPTIONS": {"server_side_binding": True} if "binding" in sys.argv else {},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", SECRET_KEY="for tests", USE_TZ=True,
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.db.models import Count, F, Q  # noqa: E402
from django.db.utils import IntegrityError, InternalError, ProgrammingError  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

urlpatterns = [path("admin/", admin.site.urls)]


class Person(models.Model):
    name = models.TextField()
    mood = models.TextField()

    class Meta:
        app_label, db_table, managed = "shop", "people", False


class Sale(models.Model):
    buyer = models.ForeignKey(Person, models.CASCADE, db_column="buyer")
    total = models.DecimalField(max_digits=12, decimal_places=2)
    tags = models.JSONField(db_column="details")

    class Meta:
        app_label, db_table, managed = "shop", "sales", False


def migrate():
    call_command("migrate", verbosity=1, no_color=True)
    call_command("migrate", "auth", "0010", verbosity=1, no_color=True)
    call_command("migrate", verbosity=0)
    call_command("showmigrations", no_color=True)
    print(sorted(connection.introspection.table_names()))


def work():
    call_command("check", database=["default"])
    call_command("inspectdb", "people", "sales", "sale_lines")
    with connection.cursor() as cursor:
        for table in ("people", "sales", "sale_lines"):
            print(connection.introspection.get_constraints(cursor, table))
            print(connection.introspection.get_relations(cursor, table), connection.introspection.get_sequences(cursor, table))
    print(list(Person.objects.filter(Q(name__icontains="n") | Q(mood="sad")).order_by("name").values("id", "name")))
    print(list(Sale.objects.values("buyer__name").annotate(n=Count("id")).filter(n__gt=1).order_by("buyer__name")))
    print(Sale.objects.filter(tags__odd=True, tags__n__gt=30).order_by("id").first().id)
    with transaction.atomic():
        sale = Sale.objects.select_for_update().get(id=1)
        Sale.objects.filter(id=sale.id).update(total=F("total") + 1)
        try:
            with transaction.atomic():
                Sale.objects.create(buyer_id=99, total=1, tags={})
                connection.check_constraints()
        except IntegrityError as error:
            print(type(error).__name__, error.__cause__.sqlstate)
    print(Sale.objects.get(id=1).total, Sale.objects.bulk_create([Sale(buyer_id=1, total=n, tags={}) for n in range(50)])[0].total)
    print(sum(s.total for s in Sale.objects.order_by("id").iterator(chunk_size=7)))  # a server-side cursor
    print(Sale.objects.get_or_create(buyer_id=2, total=1, defaults={"tags": {}})[1], Sale.objects.filter(total__lt=3).delete())
    User.objects.create_superuser("root", "root@example.org", "root")
    group = Group.objects.create(name="clerks")
    group.permissions.set(Permission.objects.filter(codename__startswith="add_"))
    browser = Client()
    print(browser.login(username="root", password="root"))
    for page in ("", "auth/", "auth/user/?q=ro&is_staff__exact=1", "auth/user/1/change/", "auth/group/add/", "auth/group/1/history/"):
        print(page, browser.get("/admin/" + page).status_code)
    print(browser.post("/admin/auth/group/add/", {"name": "cooks"}).status_code)
    print(browser.post("/admin/auth/group/", {"action": "delete_selected", "_selected_action": [2], "post": "yes"}).status_code)
    print(list(Group.objects.values_list("name", flat=True)))
    browser.logout()


def denied():
    with connection.cursor() as cursor:
        try:
            cursor.execute("truncate sale_lines")
        except ProgrammingError as error:
            print("autocommit", type(error).__name__, error.__cause__.sqlstate, str(error)[:27])
    print(Person.objects.count())
    try:
        with transaction.atomic():
            Person.objects.update(name=F("name"))
            try:
                with connection.cursor() as cursor:
                    cursor.execute("truncate sale_lines")
            except ProgrammingError as error:
                print("transaction", type(error).__name__, error.__cause__.sqlstate)
            with connection.cursor() as cursor:
                cursor.execute("select 1")
    except InternalError as error:
        print(type(error).__name__, error.__cause__.sqlstate)
    print(Person.objects.count())


{"migrate": migrate, "work": work, "denied": denied}[sys.argv[1]]()
