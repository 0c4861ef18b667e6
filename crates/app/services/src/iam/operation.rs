//! The frame that IAM's many small operations share.

/// Implements [`crate::Operation`] for a generated request of IAM: its name, the questions it asks, what it does.
macro_rules! operation {
    (
        $name:expr, $request:ident -> $output:ident,
        asks |$this:pat_param, $asking:pat_param| $questions:expr,
        does |$given:pat_param, $ctx:ident| $body:expr $(,)?
    ) => {
        impl crate::Operation for isolarium_wire::shapes::iam::$request {
            const SERVICE: &'static str = "iam";
            const NAME: &'static str = $name;
            type Output = isolarium_wire::shapes::iam::$output;

            fn questions(&self, ctx: &crate::Ctx<'_>) -> Vec<isolarium_policy::Question> {
                let ($this, $asking) = (self, ctx);
                $questions
            }

            fn execute(
                request: isolarium_policy::Granted<Self>,
                $ctx: &crate::Ctx<'_>,
            ) -> Result<Self::Output, isolarium_wire::ApiError> {
                let $given = request.into_inner();
                $body
            }
        }
    };
}

pub(super) use operation;
