//! The paths of the client API, and the methods that each allows.

/// A path of the client API, with the job or lot that it names, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'r> {
    Submit,
    List,
    Lot(&'r str),
    Cancel(&'r str),
    Deliveries(&'r str),
    /// With the delivery.
    Resend(&'r str, &'r str),
    TestEvent,
    Status(&'r str),
    Results(&'r str),
    Download(&'r str),
    LegacyStatus(&'r str),
    LegacyJob(&'r str),
    Health,
    OpenApi,
    Docs,
}

impl<'r> Route<'r> {
    /// The route of a path; `None` if there is none. The path may end in one slash.
    pub(super) fn of(path: &'r str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        if segments.contains(&"") {
            return None;
        }
        let rest = match segments.as_slice() {
            ["health"] => return Some(Self::Health),
            ["openapi.json"] => return Some(Self::OpenApi),
            ["docs"] => return Some(Self::Docs),
            ["api", "v1", rest @ ..] => rest,
            _ => return None,
        };
        Some(match *rest {
            ["generate-descriptions"] => Self::Submit,
            ["batch-jobs"] => Self::List,
            ["lots", id] => Self::Lot(id),
            ["batch-jobs", id, "cancel"] => Self::Cancel(id),
            ["batch-status", id] => Self::Status(id),
            ["batch-results", id] | ["jobs", id, "results"] => Self::Results(id),
            ["batch-results", id, "download"] => Self::Download(id),
            ["jobs", id, "deliveries"] => Self::Deliveries(id),
            ["jobs", id, "deliveries", delivery, "resend"] => Self::Resend(id, delivery),
            ["webhooks", "test"] => Self::TestEvent,
            ["jobs", id, "status"] => Self::LegacyStatus(id),
            ["jobs", id] => Self::LegacyJob(id),
            _ => return None,
        })
    }

    /// The methods that the route allows, as the header `Allow` lists them. HEAD is GET without the body.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Submit | Self::Cancel(_) | Self::Resend(..) | Self::TestEvent => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether the route allows a method.
    pub(super) fn is_allowed(self, method: &str) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method)
    }

    /// The path as the OpenAPI document writes it, with `{job_id}` for the job.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Submit => "/api/v1/generate-descriptions",
            Self::List => "/api/v1/batch-jobs",
            Self::Lot(_) => "/api/v1/lots/{lot_id}",
            Self::Cancel(_) => "/api/v1/batch-jobs/{job_id}/cancel",
            Self::Deliveries(_) => "/api/v1/jobs/{job_id}/deliveries",
            Self::Resend(..) => "/api/v1/jobs/{job_id}/deliveries/{delivery_id}/resend",
            Self::TestEvent => "/api/v1/webhooks/test",
            Self::Status(_) => "/api/v1/batch-status/{job_id}",
            Self::Results(_) => "/api/v1/batch-results/{job_id}",
            Self::Download(_) => "/api/v1/batch-results/{job_id}/download",
            Self::LegacyStatus(_) => "/api/v1/jobs/{job_id}/status",
            Self::LegacyJob(_) => "/api/v1/jobs/{job_id}",
            Self::Health => "/health",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_its_methods() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for (path, item) in paths {
            let route = Route::of(path).unwrap();
            // The results have two paths.
            if path != "/api/v1/jobs/{job_id}/results" {
                assert_eq!(route.template(), path);
            }
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            let allowed = route.allow().split(", ").filter(|it| *it != "HEAD");
            assert_eq!(methods, allowed.map(str::to_lowercase).collect::<Vec<_>>());
        }
        assert_eq!(paths.len(), 16);
    }
}
