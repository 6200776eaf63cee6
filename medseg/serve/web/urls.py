"""Every address of the site."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse
from django.urls import URLPattern, path
from django.views.i18n import set_language

from medseg.serve.web.label import asked
from medseg.serve.web.views import (
    accounts,
    compare,
    jobs,
    look,
    pacs,
    reading,
    results,
    studies,
    trail,
    uploads,
)

admin.site.site_header = admin.site.site_title = "medseg"
# One way in, with one limit of failed log-ins.
admin.site.login = login_not_required(accounts.LogIn.as_view())

CASE = "jobs/<str:id_>/cases/<str:case>/"
GROWING = "uploads/<str:id_>/"


def _for_annotators() -> list[URLPattern]:
    """The addresses of MONAI Label's protocol; [] for a site without it, which then loads nothing of it."""
    annotated = asked()
    if annotated is None:
        return []
    from medseg.serve.web.label_urls import addresses_for

    return addresses_for(annotated)


urlpatterns = [
    path("", studies.every, name="studies"),
    path("log-in/", login_not_required(accounts.LogIn.as_view()), name="log_in"),
    path("log-out/", accounts.LogOut.as_view(), name="log_out"),
    path("password/", accounts.Password.as_view(), name="password"),
    path("language/", login_not_required(set_language), name="language"),
    path("health", login_not_required(lambda request: HttpResponse("ok\n", "text/plain")), name="health"),
    path("upload/", uploads.page, name="upload"),
    path("uploads/", uploads.begin, name="begin_upload"),
    path(GROWING, uploads.state, name="upload_state"),
    path(f"{GROWING}<int:number>/<int:offset>", uploads.piece, name="upload_piece"),
    path(f"{GROWING}finish", uploads.finish, name="finish_upload"),
    path("pacs/", pacs.search, name="pacs"),
    path("pacs/fetch", pacs.fetch, name="pacs_fetch"),
    path("studies/<str:id_>/", studies.show, name="study"),
    path("studies/<str:id_>/contour", studies.contour, name="contour"),
    path("studies/<str:id_>/delete", studies.delete, name="delete_study"),
    path("studies/<str:id_>/look/<str:kind>/<str:entry>/", look.show, name="look"),
    path("studies/<str:id_>/look/<str:kind>/<str:entry>/slice", look.one_slice, name="look_slice"),
    path("jobs/<str:id_>/", jobs.show, name="job"),
    path("jobs/<str:id_>/progress", jobs.progress, name="progress"),
    path("jobs/<str:id_>/cancel", jobs.cancel, name="cancel"),
    path("jobs/<str:id_>/delete", jobs.delete, name="delete_job"),
    path("jobs/<str:id_>/review", jobs.review, name="review"),
    path("jobs/<str:id_>/send", jobs.send_on, name="send"),
    path("jobs/<str:id_>/everything.zip", results.everything, name="everything"),
    path(f"{CASE}files/<str:name>", results.download, name="download"),
    path(f"{CASE}slice", results.one_slice, name="slice"),
    path(f"{CASE}volumes/<str:name>", results.volume, name="volume"),
    path(f"{CASE}picture", results.picture, name="picture"),
    path(f"{CASE}overlays/<str:name>", results.overlay, name="overlay"),
    path("compare/", compare.choose, name="compare"),
    path("compare/make", compare.make, name="make_comparison"),
    path("comparisons/<str:id_>/", compare.show, name="comparison"),
    path("comparisons/<str:id_>/report", compare.report, name="comparison_report"),
    path("bundle/", reading.card, name="card"),
    path("manual/", reading.manual, name="manual"),
    path("self-assessment/<str:name>/", reading.self_assessment, name="self_assessment"),
    path("trail/", trail.show, name="trail"),
    path("admin/", admin.site.urls),
    *_for_annotators(),
]
