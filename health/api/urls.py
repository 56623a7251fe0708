"""Routes of the health app, below `/api/v1`."""

from django.urls import path

from health.api import views

urlpatterns = [
    path(
        "devices/<str:device_id>/health",
        views.DeviceHealthView.as_view(),
        name="device-health",
    ),
    path(
        "devices/<str:device_id>/health/events",
        views.DeviceEventsView.as_view(),
        name="device-health-events",
    ),
    path(
        "devices/<str:device_id>/health/history",
        views.DeviceHistoryView.as_view(),
        name="device-health-history",
    ),
]
