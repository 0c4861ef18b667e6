//! The frame that EC2's operations share.

/// Implements [`crate::Operation`] for a generated request of EC2: its name, its questions from the table in `questions`,
/// and `DryRun`, which is answered after authorization and before anything else (NET-80). `never dry` is for requests
/// whose model has no `DryRun`.
macro_rules! operation {
    ($name:literal, $request:ident -> $output:ident, $run:path) => {
        $crate::ec2::operation::operation!(@ $name, $request -> $output, $run, |request| request.dry_run == Some(true));
    };
    (never dry $name:literal, $request:ident -> $output:ident, $run:path) => {
        $crate::ec2::operation::operation!(@ $name, $request -> $output, $run, |_| false);
    };
    (@ $name:literal, $request:ident -> $output:ident, $run:path, $dry:expr) => {
        impl crate::Operation for isolarium_wire::shapes::ec2::$request {
            const SERVICE: &'static str = "ec2";
            const NAME: &'static str = $name;
            type Output = isolarium_wire::shapes::ec2::$output;

            fn questions(&self, ctx: &crate::Ctx<'_>) -> Vec<isolarium_policy::Question> {
                crate::ec2::questions::questions(self, ctx)
            }

            fn asked(&self, ctx: &crate::Ctx<'_>) -> Result<crate::Asked, isolarium_wire::ApiError> {
                crate::ec2::questions::asked(self, ctx)
            }

            fn execute(
                request: isolarium_policy::Granted<Self>,
                ctx: &crate::Ctx<'_>,
            ) -> Result<Self::Output, isolarium_wire::ApiError> {
                let request = request.into_inner();
                let dry: fn(&Self) -> bool = $dry;
                if dry(&request) {
                    return Err(crate::ec2::error::dry_run());
                }
                $run(request, ctx)
            }
        }
    };
}

pub(super) use operation;
