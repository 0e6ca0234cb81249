"""Contains all the data models used in inputs/outputs"""

from .announce import Announce
from .arrivals import Arrivals
from .audit_view import AuditView
from .begin_device_sign_in import BeginDeviceSignIn
from .begin_web_sign_in import BeginWebSignIn
from .build_view import BuildView
from .commit_view import CommitView
from .commits_view import CommitsView
from .create_key import CreateKey
from .create_session import CreateSession
from .create_session_env import CreateSessionEnv
from .device_sign_in_poll import DeviceSignInPoll
from .device_sign_in_view import DeviceSignInView
from .event_frame import EventFrame
from .event_view import EventView
from .event_view_data import EventViewData
from .exec_view import ExecView
from .exit_view import ExitView
from .expected_view import ExpectedView
from .extend import Extend
from .file_change_view import FileChangeView
from .file_view import FileView
from .files_view import FilesView
from .finish_web_sign_in import FinishWebSignIn
from .floor_view import FloorView
from .fork import Fork
from .give_order import GiveOrder
from .hand_token import HandToken
from .happening_frame import HappeningFrame
from .happening_view import HappeningView
from .image_diff_view import ImageDiffView
from .image_failure_view import ImageFailureView
from .image_view import ImageView
from .key_view import KeyView
from .lesson_view import LessonView
from .list_audit_view import ListAuditView
from .list_build_view import ListBuildView
from .list_exec_view import ListExecView
from .list_file_view import ListFileView
from .list_image_view import ListImageView
from .list_key_view import ListKeyView
from .list_pool_view import ListPoolView
from .list_pull_request_view import ListPullRequestView
from .list_removal_view import ListRemovalView
from .list_repo_view import ListRepoView
from .list_session_view import ListSessionView
from .list_snapshot_view import ListSnapshotView
from .list_user_view import ListUserView
from .list_warmup_view import ListWarmupView
from .lost_view import LostView
from .made_key import MadeKey
from .minute_view import MinuteView
from .new_warmup_token import NewWarmupToken
from .open_pull_request import OpenPullRequest
from .order_view import OrderView
from .order_word import OrderWord
from .outcome_view import OutcomeView
from .outcomes_view import OutcomesView
from .outcomes_view_by_repo import OutcomesViewByRepo
from .outcomes_view_by_user import OutcomesViewByUser
from .output_line import OutputLine
from .package_change_view import PackageChangeView
from .packages_view import PackagesView
from .phase_view import PhaseView
from .pool_terms import PoolTerms
from .pool_view import PoolView
from .problem import Problem
from .prompt import Prompt
from .prompting_view import PromptingView
from .prompting_view_by_repo import PromptingViewByRepo
from .pull_request_view import PullRequestView
from .removal_view import RemovalView
from .repo_view import RepoView
from .send_signal import SendSignal
from .session_view import SessionView
from .snapshot_view import SnapshotView
from .start_build import StartBuild
from .start_exec import StartExec
from .start_exec_env import StartExecEnv
from .stats import Stats
from .stats_live_by_repo import StatsLiveByRepo
from .stats_pull_requests_by_state import StatsPullRequestsByState
from .stats_sessions_by_launch import StatsSessionsByLaunch
from .stats_sessions_by_state import StatsSessionsByState
from .stats_snapshots_by_state import StatsSnapshotsByState
from .sync_action import SyncAction
from .sync_again import SyncAgain
from .sync_view import SyncView
from .tally_view import TallyView
from .terminal import Terminal
from .user import User
from .user_view import UserView
from .warmup_token import WarmupToken
from .warmup_view import WarmupView
from .web_sign_in_view import WebSignInView
from .who_view import WhoView

__all__ = (
    "Announce",
    "Arrivals",
    "AuditView",
    "BeginDeviceSignIn",
    "BeginWebSignIn",
    "BuildView",
    "CommitView",
    "CommitsView",
    "CreateKey",
    "CreateSession",
    "CreateSessionEnv",
    "DeviceSignInPoll",
    "DeviceSignInView",
    "EventFrame",
    "EventView",
    "EventViewData",
    "ExecView",
    "ExitView",
    "ExpectedView",
    "Extend",
    "FileChangeView",
    "FileView",
    "FilesView",
    "FinishWebSignIn",
    "FloorView",
    "Fork",
    "GiveOrder",
    "HandToken",
    "HappeningFrame",
    "HappeningView",
    "ImageDiffView",
    "ImageFailureView",
    "ImageView",
    "KeyView",
    "LessonView",
    "ListAuditView",
    "ListBuildView",
    "ListExecView",
    "ListFileView",
    "ListImageView",
    "ListKeyView",
    "ListPoolView",
    "ListPullRequestView",
    "ListRemovalView",
    "ListRepoView",
    "ListSessionView",
    "ListSnapshotView",
    "ListUserView",
    "ListWarmupView",
    "LostView",
    "MadeKey",
    "MinuteView",
    "NewWarmupToken",
    "OpenPullRequest",
    "OrderView",
    "OrderWord",
    "OutcomeView",
    "OutcomesView",
    "OutcomesViewByRepo",
    "OutcomesViewByUser",
    "OutputLine",
    "PackageChangeView",
    "PackagesView",
    "PhaseView",
    "PoolTerms",
    "PoolView",
    "Problem",
    "Prompt",
    "PromptingView",
    "PromptingViewByRepo",
    "PullRequestView",
    "RemovalView",
    "RepoView",
    "SendSignal",
    "SessionView",
    "SnapshotView",
    "StartBuild",
    "StartExec",
    "StartExecEnv",
    "Stats",
    "StatsLiveByRepo",
    "StatsPullRequestsByState",
    "StatsSessionsByLaunch",
    "StatsSessionsByState",
    "StatsSnapshotsByState",
    "SyncAction",
    "SyncAgain",
    "SyncView",
    "TallyView",
    "Terminal",
    "User",
    "UserView",
    "WarmupToken",
    "WarmupView",
    "WebSignInView",
    "WhoView",
)
