//! What the seam expects of a provider, asked of every provider at its real server.
//!
//! A provider joins by one adapter, a [`world::World`] of its server, and one line at the end of this page.

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod azure;
mod capture;
mod cases;
mod local;
mod vault;
mod world;

#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../aws/world.rs"]
mod aws_world;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../azure/world.rs"]
mod azure_world;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../provider/world.rs"]
mod vault_world;

/// Every case, for one provider.
macro_rules! contract {
    ($provider:ident, $world:ty) => {
        contract! { $provider, $world,
            values: a_secret_is_read_with_its_fields_and_its_version,
            values: what_is_binary_is_true_to_the_byte,
            values: sixty_four_kib_are_read_whole,
            values: an_empty_field_is_an_empty_value_and_an_empty_secret_is_what_the_provider_says,
            values: names_may_be_as_odd_as_the_provider_lets_them,
            values: many_are_read_in_the_order_of_the_question_and_one_fault_is_its_own,
            versions: a_check_tells_the_version_of_each_and_reads_no_value,
            versions: a_rotation_is_another_version_with_the_new_value,
            versions: what_was_removed_and_made_again_is_another_version,
            versions: of_ten_thousand_versions_the_newest_is_found_in_time_and_in_bounded_memory,
            faults: what_is_missing_is_told_by_a_read_and_by_a_check,
            faults: what_is_forbidden_is_refused_for_good,
            faults: a_throttled_read_is_told_with_the_pause_and_not_repeated,
            faults: a_slow_answer_is_waited_for_and_holds_up_no_other_secret,
            faults: no_answer_at_all_ends_in_time,
            faults: half_an_answer_is_no_value,
            faults: a_half_closed_connection_ends_at_once,
        }
    };
    ($provider:ident, $world:ty, $($part:ident: $case:ident,)*) => {
        mod $provider {
            use crate::world::World;
            $(
                #[tokio::test]
                async fn $case() {
                    crate::cases::$part::$case(&<$world>::start().await).await
                }
            )*
        }
    };
}

contract!(of_local, crate::local::Local);
contract!(of_vault, crate::vault::Vault);
contract!(of_aws, crate::aws::Aws);
contract!(of_azure, crate::azure::Azure);
